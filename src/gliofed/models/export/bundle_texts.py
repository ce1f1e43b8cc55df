"""The texts of a MONAI bundle: metadata, how to run it, rights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import version
from textwrap import indent
from typing import Any, Final

from gliofed.calibration.fusion import network_alone_text
from gliofed.data.nifti import IMAGE_ENDINGS
from gliofed.models.folder import TrainedModel
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.settings import toml_of
from gliofed.types import SEQUENCES
from gliofed.version import __version__

_SCHEMA: Final = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
_BUNDLE: Final = "1.0.0"
"""A model never changes, so that its bundle has one version; another model has another id."""
NOT_TRAINED: Final = "not trained: the values of this output mean nothing"
_README: Final = """# {name}

**{caution}**

A MONAI bundle of the gliofed model `{id}`.
On preoperative glioma MRI it segments the T2/FLAIR-hyperintense region and predicts
{markers}. {untrained}{alone}The probabilities are the network's own, not calibrated;
`gliofed predict` with the model folder calibrates them.

## Run it

You need gliofed {gliofed} and MONAI's command line (`pip install "monai[fire]"`). In this folder:

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir IMAGES --output_dir PREDICTIONS

The configuration builds the network from gliofed's code and holds expressions that MONAI
evaluates: run it only if you trust its sender. There is no pickle; weights are safetensors.

## Input

`IMAGES` holds NIfTI files of one case or several, prepared for this network: cropped to the
brain, all sequences of a case on one grid, voxels and space as below, z-scores within the brain
and 0 elsewhere. `gliofed export --image` writes them from a prepared case, under these names:

{files}

Sequences may be missing; a case needs one. Prepare scans by a study file with these tables
(`gliofed prepare --study`; steps `{steps}`):

{settings}

## Output

| in `PREDICTIONS` | content |
|---|---|
| `CASE_space-gliofed_desc-tumor_probseg.nii.gz` | tumour probability on the images' grid{mirror} |
| `CASE_markers.json` | the model, the sequences present, and the probability of each class |

# The model's card

{card}
"""


def metadata_of(model: TrainedModel) -> Mapping[str, Any]:
    """`metadata.json`, in MONAI's schema of July 2024."""
    own = model.recipe
    names = [m.marker for m in own.trained]
    packages = ("gliofed", "nibabel", "safetensors")
    return {
        "schema": _SCHEMA,
        "name": f"gliofed model {model.id[:12]}",
        "version": _BUNDLE,
        "changelog": {_BUNDLE: f"gliofed model {model.id}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            p: __version__ if p == "gliofed" else version(p) for p in packages
        },
        "task": f"Glioma on preoperative MRI: {', '.join(['segmentation', *names])}",
        "description": f"{RESEARCH_USE_ONLY} Study {own.name}, {own.rounds} rounds. Probabilities "
        f"are not calibrated. {untrained_text(model)}{network_alone_text(model.fusion)}".rstrip(),
        "intended_use": RESEARCH_USE_ONLY,
        "authors": "The authors of the study; see docs/README.md",
        "copyright": "The authors of the study; see LICENSE",
        "data_type": "nibabel",
        "image_classes": "four sequences on one grid, z-scored within the brain, 0 elsewhere and "
        "where a sequence is absent",
        "pred_classes": "logits of the T2/FLAIR-hyperintense region, and of each marker's classes",
        "network_data_format": {"inputs": _inputs(), "outputs": _outputs(model)},
    }


def readme_of(model: TrainedModel) -> str:
    """How the bundle is run, and the model's card."""
    own = model.recipe
    tables = {n: dataclasses.asdict(getattr(own, n)) for n in ("grid", "prepare", "quality")}
    return _README.format(
        name=f"gliofed: {own.name}",
        caution=RESEARCH_USE_ONLY,
        id=model.id,
        markers=", ".join(m.marker for m in own.trained) or "no marker",
        untrained=untrained_text(model),
        alone=network_alone_text(model.fusion),
        gliofed=__version__,
        files="\n".join(f"- {s.value}: `CASE{IMAGE_ENDINGS[s]}.nii.gz`" for s in SEQUENCES),
        steps=own.steps,
        settings=indent(toml_of(tables).strip(), "    "),
        mirror=", averaged over the scan and its mirror image" if own.mirror else "",
        card=model.card or "This model has no card.",
    )


def untrained_text(model: TrainedModel) -> str:
    """Markers without an answer and sequences without a training case, as sentences with a space
    after each; empty without one."""
    markers, unknown = (", ".join(n) for n in (model.recipe.untrained, model.untrained_sequences))
    return (f"Not trained, without an answer: {markers}. " if markers else "") + (
        f"Not used, since no training case had it: {unknown}. " if unknown else ""
    )


def licence_of(model: TrainedModel) -> str:
    """A notice on rights: gliofed's licence covers its code, not the weights."""
    return (
        f"The weights are of gliofed model {model.id}.\n"
        "gliofed grants no rights to them. Ask those who trained the model; they can grant rights\n"
        "within the limits of the training data.\n"
        "The code of gliofed, which builds the network, is under the Apache License 2.0.\n"
        f"{RESEARCH_USE_ONLY}\n"
    )


def _inputs() -> Mapping[str, Any]:
    absent = "1 where the sequence is present, else 0"
    return {
        "image": {
            **_image("magnitude", len(SEQUENCES)),
            "modality": "MR",
            "value_range": [],
            "channel_def": {str(i): s.value for i, s in enumerate(SEQUENCES)},
        },
        "present": _row([s.value for s in SEQUENCES], [0, 1]) | {"description": absent},
    }


def _outputs(model: TrainedModel) -> Mapping[str, Any]:
    mask = {**_image("segmentation", 1), "value_range": [], "channel_def": {"0": "tumour, logit"}}
    markers = {m.marker: _row(m.classes, []) for m in model.recipe.markers}
    for name in model.recipe.untrained:
        markers[name] |= {"description": NOT_TRAINED}
    return {"mask": mask, **markers}


def _image(kind: str, channels: int) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "num_channels": channels,
        "spatial_shape": ["*"] * 3,
        "dtype": "float32",
        "is_patch_data": False,
    }


def _row(columns: Any, within: list[int]) -> dict[str, Any]:
    return {
        "type": "tuples",
        "format": "classes",
        "num_channels": len(columns),
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": within,
        "is_patch_data": False,
        "channel_def": {str(i): name for i, name in enumerate(columns)},
    }
