"""A model as a MONAI bundle, a folder for `python -m monai.bundle run`.

<folder>/configs/metadata.json      inputs, outputs and required packages
<folder>/configs/inference.json     from NIfTI in the network's space to predictions
<folder>/models/model.safetensors   the weights; there is no pickle
<folder>/docs/README.md             how to run it, and the model's card
<folder>/LICENSE                    rights
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from torch import Tensor

from gliofed.data.nifti import IMAGE_ENDINGS
from gliofed.errors import ModelError
from gliofed.models.export.bundle_texts import licence_of, metadata_of, readme_of
from gliofed.models.export.equivalence import Outputs, check_equivalence, named_outputs
from gliofed.models.folder import TrainedModel
from gliofed.models.network import MultiTaskNet
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.files import keep, keep_folder
from gliofed.types import SEQUENCES

METADATA: Final = "configs/metadata.json"
INFERENCE: Final = "configs/inference.json"
WEIGHTS: Final = "models/model.safetensors"
_TEMPLATE: Final = Path(__file__).with_name("inference.json")


def write_bundle(model: TrainedModel, folder: Path) -> float:
    """Write the folder if its network gives the model's outputs; return the greatest difference.

    Raises ModelError as `check_equivalence` does, and where MONAI cannot build the network.
    """
    tensors = {k: v.contiguous() for k, v in sorted(model.weights.items())}
    files = {
        METADATA: _json(metadata_of(model)),
        INFERENCE: _json(inference_of(model)),
        WEIGHTS: safetensors.torch.save(tensors),
        "docs/README.md": readme_of(model).encode(),
        "LICENSE": licence_of(model).encode(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for name, data in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            keep(part / name, data)
        difference = check_equivalence(model.net(), runner(part, str(folder)), str(folder))
        for subfolder in (*sorted(p.parent for p in map(part.joinpath, files)), part):
            keep_folder(subfolder)
        part.rename(folder)
        keep_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return difference


def runner(folder: Path, name: str) -> Callable[[Tensor, Tensor], Outputs]:
    """The bundle's network as MONAI builds it and loads its weights, on the CPU.

    name: of the bundle, for the error. Raises ModelError where that fails.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    parser.read_meta(folder / METADATA)
    parser["bundle_root"], parser["device"] = str(folder), "cpu"
    try:
        parser.get_parsed_content("initialize")
        net: MultiTaskNet = parser.get_parsed_content("network")
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{name}: MONAI cannot build its network ({error.__cause__ or error})"
        ) from error

    def run(image: Tensor, present: Tensor) -> Outputs:
        with torch.inference_mode():
            return named_outputs(net(image, present))

    return run


def inference_of(model: TrainedModel) -> Mapping[str, Any]:
    """`inference.json`: MONAI reads and writes, gliofed has the network, and no script is needed.

    Markers that the model was not trained for have no probabilities; sequences that no training
    case had count as missing.
    A case is the common part of file names in `dataset_dir`, as `gliofed export --image` writes
    them. A missing sequence is replaced by a present one, times 0. Each pass flips the image along
    the axes of its row of `turns`.
    """
    recipe = model.recipe
    settings = dataclasses.asdict(recipe.net)
    if recipe.net.stem is not None:
        settings["stem"] = f"${recipe.net.stem}"  # a tuple, which JSON does not have
    network = {
        "_target_": "gliofed.models.network.build_net",
        "config": {"_target_": "gliofed.study.NetworkConfig", **settings},
        "seed": 0,
    }
    return {
        "about": {
            "model": model.id,
            "caution": RESEARCH_USE_ONLY,
            "calibrated": False,
            "untrained": list(recipe.untrained),
        },
        "markers": {m.marker: m.classes for m in recipe.trained},
        "untrained_sequences": list(model.untrained_sequences),
        "sequences": {s.value: f"{IMAGE_ENDINGS[s]}.nii.gz" for s in SEQUENCES},
        "turns": [[], [1]] if recipe.mirror else [[]],
        "network_def": network,
        **json.loads(_TEMPLATE.read_text(encoding="utf-8")),
    }


def _json(plain: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()
