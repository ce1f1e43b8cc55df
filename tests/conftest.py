"""Small hospitals on disk, and prepared cases made from them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from gliofed.data.store import PreparedCase
from gliofed.reporting.plots import style
from gliofed.study import PreparationConfig, Study, parse_study
from gliofed.types import SEQUENCES, Case, Labels, PreparationMeasures

SUFFIX = {"T1": "T1w", "T1CE": "ce-gadolinium_T1w", "T2": "T2w", "FLAIR": "FLAIR"}
COLUMNS = ("idh", "codel_1p19q", "mgmt", "grade")


def pytest_configure() -> None:
    """Commands that tests start hear Ctrl-C: a shell's background has it ignored, and they too.

    And they keep what they compile: some fifty processes do not each compile the sources anew.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


STRIPPED = PreparationConfig(brain="stripped", register=False, space="scanner", bias=False)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def real_data() -> Path:
    """The folder of real cases; tests that ask for it skip where it is absent."""
    root = Path(os.environ.get("GLIOFED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set GLIOFED_DATA to test on real cases")
    return root


def write_image(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)


def write_subject(
    root: Path, name: str, seed: int, sequences: tuple[str, ...] = tuple(SUFFIX), mask: bool = True
) -> None:
    """A ball of a brain with a bright box in it, as one BIDS subject."""
    rng = np.random.default_rng(seed)
    axes = np.indices((20, 24, 18)) - np.array([10, 12, 9])[:, None, None, None]
    brain = (axes**2).sum(0) < 64
    box = np.zeros(brain.shape, bool)
    x, y, z = rng.integers(7, 11, 3)
    box[x : x + 5, y : y + 5, z - 2 : z + 3] = True
    box &= brain
    for sequence in sequences:
        image = np.where(brain, 100 + 10 * rng.standard_normal(brain.shape) + 60 * box, 0)
        path = root / f"sub-{name}/anat/sub-{name}_{SUFFIX[sequence]}.nii.gz"
        write_image(path, image.astype(np.float32))
    if mask:
        folder = root / f"derivatives/tumor/sub-{name}/anat"
        write_image(folder / f"sub-{name}_label-tumor_mask.nii.gz", box.astype(np.uint8))


def write_hospital(root: Path, labels: Mapping[str, tuple[str, ...]], seed: int = 0) -> Path:
    """A BIDS hospital with a subject for each row of `labels` (idh, 1p/19q, mgmt, grade)."""
    lines = ["\t".join(("participant_id", *COLUMNS))]
    for number, (name, row) in enumerate(labels.items()):
        write_subject(root, name, 100 * seed + number)
        lines.append("\t".join((f"sub-{name}", *row)))
    root.mkdir(parents=True, exist_ok=True)
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def make_prepared() -> Callable[..., PreparedCase]:
    """A prepared case without files: labels by marker, and a box of a tumour unless told."""

    def make(
        name: str,
        labels: Mapping[str, str] | None = None,
        site: str = "here",
        tumour: bool = True,
        mask: bool = True,
        size: int = 16,
    ) -> PreparedCase:
        rng = np.random.default_rng(sum(map(ord, site + name)))
        drawn = np.zeros((size,) * 3, np.uint8)
        if tumour:
            drawn[4:9, 5:10, 6:11] = 1
        image = rng.standard_normal((4, size, size, size)) + 2 * drawn
        case = Case(name, site, name, dict.fromkeys(SEQUENCES, Path()), None, Labels(labels))
        lesion = np.array([[4, 8], [5, 9], [6, 10]]) if tumour and mask else None
        return PreparedCase(
            case=case,
            key=name,
            image=image.astype(np.float16),
            mask=drawn if mask else None,
            present=(True,) * 4,
            affine=np.eye(4),
            lesion=lesion,
            placements={},
            mask_placement=None,
            measures=PreparationMeasures(1.3, None, {}),
        )

    return make


TINY = {
    "name": "tiny",
    "data": {"root": "nowhere", "train": ["a", "b"], "external": ["c"]},
    "grid": {"patch": [16, 16, 16], "spacing_mm": [2, 2, 2]},
    "prepare": {"brain": "stripped", "register": False, "space": "scanner", "bias": False},
    "quality": {"brain_litres": [0, 9], "alignment": 0},
    "train": {"rounds": 2, "batch": 2},
    "score": {"bootstrap": 100},
}


@pytest.fixture
def tiny_study() -> Study:
    """Two rounds on 16-voxel cubes."""
    return parse_study(TINY)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about figures: drawing them takes most of the end of a small run."""
    monkeypatch.setattr(style, "print_figures", lambda plots: ({}, b""))
    monkeypatch.setattr(
        style, "screen_picture", lambda plot: style.Picture("data:,", plot.alt, 9, 9)
    )
