"""Masks that federated models predict for external cases, stored for later steps of a run.

How far the models of several seeds agree, and the examples on the page, come from these files, so
that no case is predicted twice.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.inference.native_grid import THRESHOLD
from gliofed.runtime.files import replacing
from gliofed.study import FEDERATED
from gliofed.types import Prediction


def needs_masks(run: ModelRun) -> bool:
    """Whether a later step reads the masks that the model predicts for external cases."""
    return run.model == FEDERATED and bool(run.split.external)


def masks_file(context: RunContext, run: ModelRun) -> Path:
    """The file of a model's predicted masks; there once the model has been tested."""
    name = run.test_id(context.study, context.prepared)[:12]
    return run.folder(context.out) / f"masks-{name}.zip"


def pack_mask(prediction: Prediction) -> bytes:
    """The predicted mask on the prepared grid, one compressed bit a voxel."""
    return zlib.compress(np.packbits(prediction.probability >= THRESHOLD).tobytes())


def write_masks(path: Path, masks: Mapping[str, bytes]) -> None:
    """Write packed masks by "site/id" in one step. Raises OSError."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, packed in masks.items():
            archive.writestr(name, packed)


def read_mask(path: Path, prepared: PreparedCase) -> NDArray[np.bool_]:
    """One case's predicted mask (X, Y, Z) on its prepared grid. Raises OSError."""
    with zipfile.ZipFile(path) as archive:
        packed = zlib.decompress(archive.read(str(prepared.case)))
    shape = prepared.image.shape[1:]
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)
