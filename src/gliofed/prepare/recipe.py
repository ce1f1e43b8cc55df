"""The recipe: a case's files to the arrays that the network is trained on.

read -> RAS axes -> one grid -> brain -> crop to the brain -> z-score. Its version is part of
every store key, so a change of any step makes new entries instead of mixing with old ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from gliofed.datasets.preoperative import check_mask_labels
from gliofed.errors import DataError
from gliofed.io.nifti import Volume, read_nifti
from gliofed.io.store import Entry, Prepared, PreparedStore
from gliofed.prepare.brain import bounding_box, nonzero_brain
from gliofed.prepare.normalise import zscore
from gliofed.prepare.resample import resample, resample_mask, target_grid
from gliofed.study import Grid
from gliofed.types import SEQUENCES, Case, Placement
from gliofed.types import Sequence as Mri

RECIPE: Final = "stripped-1"
REFERENCE: Final = (Mri.FLAIR, Mri.T2, Mri.T1CE, Mri.T1)
"""The first of these that a case has gives its grid: the outline is drawn on T2/FLAIR."""


def prepare_case(case: Case, grid: Grid) -> Entry:
    """Run the recipe on one case.

    Raises DataError naming the case and file: unreadable, a mask on an image with no brain, a
    mask with labels that the set's preoperative masks do not have, or a sequence that does not
    meet the reference's field of view.
    """
    volumes = {s: read_nifti(p) for s, p in case.images.items()}
    reference = volumes[next(s for s in REFERENCE if s in volumes)]
    shape, affine = target_grid(_shape(reference), reference.affine, grid.spacing_mm)
    image = np.zeros((len(SEQUENCES), *shape), np.float32)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in volumes:
            volume = volumes[sequence]
            image[channel] = resample(volume.data, volume.affine, shape, affine)
            if not image[channel].any():
                raise DataError(
                    f"{case}: {case.images[sequence]} is empty within the field of view of the "
                    "reference sequence; check that it belongs to this study"
                )
    brain = nonzero_brain(image)
    box = bounding_box(brain)
    image = np.stack([zscore(c, brain & (c != 0)) for c in image])[(slice(None), *box)]
    mask, drawn = None, None
    if case.mask is not None:
        drawn = read_nifti(case.mask)
        check_mask_labels(case, np.unique(drawn.data[drawn.data > 0]).tolist())
        whole = resample_mask(drawn.data > 0, drawn.affine, shape, affine)[box]
        mask = whole.astype(np.uint8)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    return Entry(
        image=image.astype(np.float16),
        mask=mask,
        present=tuple(s in volumes for s in SEQUENCES),
        affine=shifted,
        placements={s: _placement(v) for s, v in volumes.items()},
        mask_placement=None if drawn is None else _placement(drawn),
    )


def prepare_all(
    cases: Iterable[Case],
    grid: Grid,
    store: PreparedStore,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Prepared, ...]:
    """Every case prepared, in order; those already in the store are not made again.

    Two cases are worked on at a time. Raises the first case's DataError; what was finished
    before stays in the store, so a second start goes on from there.
    """
    work = list(cases)
    done = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = []
        for prepared in pool.map(lambda c: _stored(c, grid, store), work):
            results.append(prepared)
            done += 1
            if progress is not None:
                progress(done, len(work))
    return tuple(results)


def _stored(case: Case, grid: Grid, store: PreparedStore) -> Prepared:
    key = store_key(case, grid, store)
    if not store.has(key):
        sources = {s.value: str(p) for s, p in case.images.items()}
        store.put(key, prepare_case(case, grid), {"recipe": RECIPE, "sources": sources,
                                                  "grid": list(grid.spacing_mm)})  # fmt: skip
    return store.open(key, case)


def store_key(case: Case, grid: Grid, store: PreparedStore) -> str:
    """SHA-256 over the recipe, the spacing, the bytes of every source file and mask labels."""
    files: Sequence[tuple[str, Path | None]] = [
        *((s.value, case.images.get(s)) for s in SEQUENCES),
        ("mask", case.mask),
    ]
    parts = {name: store.file_digest(path) if path else None for name, path in files}
    held = [sorted(case.mask_labels)] if case.mask_labels else []
    text = json.dumps([RECIPE, list(grid.spacing_mm), parts, *held], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _placement(volume: Volume) -> Placement:
    return Placement(volume.stored_shape, volume.stored_affine, np.eye(4))


def _shape(volume: Volume) -> tuple[int, int, int]:
    x, y, z = volume.data.shape
    return x, y, z
