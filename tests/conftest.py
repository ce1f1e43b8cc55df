"""Small hospitals on disk, and prepared cases made from them."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import util
from pathlib import Path

# Before torch and OpenBLAS are loaded: test files run side by side, and so do the processes that
# they start. More threads than cores wait in loops for each other.
os.environ |= {
    name: os.environ.get(name, "1")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
}

import nibabel as nib
import numpy as np
import pytest
import torch

from gliofed.data.store import PreparedCase
from gliofed.models.presets import PRESETS
from gliofed.reporting.plots import style
from gliofed.study import PreparationConfig, Study, parse_study
from gliofed.types import SEQUENCES, Case, Labels, PreparationMeasures

SUFFIX = {"T1": "T1w", "T1CE": "ce-gadolinium_T1w", "T2": "T2w", "FLAIR": "FLAIR"}
COLUMNS = ("idh", "codel_1p19q", "mgmt", "grade")


LONGEST = (
    "test_experiment", "test_attacks", "test_planted", "test_faults", "test_flare_engine",
    "test_real_preparation", "test_prepare_verb", "test_dicom_web", "test_case_viewer",
    "test_register", "test_regress", "test_report", "test_check_output", "test_intake", "test_aside", "test_kits_live",
)  # fmt: skip
"""Files that take longest, run first: else the last worker ends long after the others."""

OUTSIDE_FAST = ("slow", "process", "data", "campaign")
"""Marks of tests that `make test-fast` leaves out."""

PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}

_running: list[pytest.Item] = []
_spawn = util.spawnv_passfds


def pytest_configure(config: pytest.Config) -> None:
    """Processes that tests start: Ctrl-C works in them, they compile once, and tests are marked.

    A shell's background ignores Ctrl-C, and so would they. Kept bytecode spares some fifty
    processes from compiling the sources anew.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "not process" in config.option.markexpr:
        sys.addaudithook(lambda event, _: _check_marks() if event in PROCESS_EVENTS else None)
        util.spawnv_passfds = _spawn_checked


def _spawn_checked(*arguments: object) -> int:
    """What multiprocessing starts its processes with raises no audit event."""
    _check_marks()
    return _spawn(*arguments)


def _check_marks() -> None:
    """Fail a test that starts a process and is not marked so: `make test-fast` would run it."""
    if _running and not any(_running[-1].get_closest_marker(m) for m in OUTSIDE_FAST):
        pytest.fail(f"{_running[-1].nodeid} starts a process: mark it @pytest.mark.process")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


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
    "train": {"epochs": 2, "batch": 2},
    "score": {"bootstrap": 100},
}


THIN = dataclasses.replace(PRESETS["small"], widths=(8, 8, 8, 16))


@pytest.fixture
def tiny_study(monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two epochs on 16-voxel cubes, with a network of few channels in this process."""
    monkeypatch.setitem(PRESETS, "small", THIN)
    return parse_study(TINY)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about figures: drawing them takes most of the end of a small run."""
    monkeypatch.setattr(style, "print_figures", lambda plots: style.PrintFigures({}, b""))
    monkeypatch.setattr(
        style, "screen_picture", lambda plot: style.Picture("data:,", plot.alt, 9, 9)
    )
