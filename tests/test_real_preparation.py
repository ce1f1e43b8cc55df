"""Registration, the way back and brain extraction on real scans, with the truth known.

The published cases are moved, thinned out and shaded first, or get a head: see moved_scans.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import moved_scans as scans
import numpy as np
import pytest

from gliofed.data.nifti import Volume, read_nifti
from gliofed.data.store import StoreEntry
from gliofed.evaluation.metrics.segmentation import dice
from gliofed.inference.native_grid import mask_on_scan
from gliofed.preprocessing.brain_extraction import deepbet_brain, looks_stripped, nonzero_brain
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.preprocessing.recipe import prepare_case
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Case, Labels, Placement, Prediction, Sequence

pytestmark = [pytest.mark.data, pytest.mark.slow]


@pytest.fixture(scope="module")
def published() -> list[Path]:
    """Two of the six, one to move and one to put into a head; benchmarks/prepare.py has all."""
    root = Path(os.environ.get("GLIOFED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    found = scans.published_folders(root)[:2]
    if len(found) < 2:
        pytest.skip(f"no brats-tcga in {root}; set GLIOFED_DATA to test on real cases")
    return found


@dataclass(frozen=True)
class Known:
    """A prepared case; apart: mm between each other sequence and T1CE in the network's space."""

    case: Case
    entry: StoreEntry
    apart: dict[Sequence, float]


@pytest.fixture(scope="module")
def moved(published, tmp_path_factory) -> Known:
    """Each sequence moved for itself, the mask on the grid of the thick FLAIR."""
    source = published[0]
    folder = tmp_path_factory.mktemp(source.name)
    volumes = scans.published_case(source)
    there = scans.moved_case(volumes, seed=100)
    paths = scans.write(folder, {s: m.volume for s, m in there.items()})
    flair = there[Sequence.FLAIR]
    drawn = scans.on_grid(
        scans.published_mask(source), flair.matrix, flair.volume.data.shape, flair.volume.affine
    )
    mask = Volume((drawn >= 0.5).astype(np.uint8), flair.volume.affine)
    scans.write_volume(folder / "mask.nii", mask)
    case = Case(source.name, "here", source.name, paths, folder / "mask.nii", Labels())
    entry = prepare_case(case, GridConfig(spacing_mm=(1.0, 1.0, 1.0)), PreparationConfig())
    to_network = {s: np.linalg.inv(p.matrix) @ there[s].matrix for s, p in entry.placements.items()}
    points = scans.brain_points(volumes[Sequence.T1CE])
    apart = {
        s: scans.apart(matrix, to_network[Sequence.T1CE], points)
        for s, matrix in to_network.items()
        if s is not Sequence.T1CE
    }
    return Known(case, entry, apart)


def test_moved_sequences_are_laid_on_each_other(moved) -> None:
    found = list(moved.apart.values())
    assert len(found) == 3
    assert np.median(found) < 1
    assert max(found) < 2
    assert moved.entry.reference is Sequence.T1CE


def test_the_expert_s_mask_survives_the_way_to_thick_slices(moved) -> None:
    drawn = read_nifti(moved.case.mask).data > 0
    assert dice(back(moved.entry, moved.entry.mask_placement), drawn) >= 0.97


def test_a_sound_case_passes_the_default_bounds(moved) -> None:
    measures, asked = moved.entry.measures, QualityConfig()
    assert measures.template_dice > asked.template_dice
    assert asked.brain_litres[0] < measures.brain_litres < asked.brain_litres[1]
    assert min(measures.alignment.values()) > asked.alignment


def test_the_expert_s_mask_survives_the_way_to_its_own_millimetres(published) -> None:
    source = published[1]
    images = {s: source / f"{source.name}_{s.value.lower()}.nii.gz" for s in Sequence}
    mask = source / f"{source.name}_seg.nii.gz"
    case = Case(source.name, "here", source.name, images, mask, Labels())
    entry = prepare_case(
        case, GridConfig(spacing_mm=(1.0, 1.0, 1.0)), replace(PreparationConfig(), bias=False)
    )
    matrices = [p.matrix for p in entry.placements.values()]
    assert all(np.array_equal(m, matrices[0]) for m in matrices)
    drawn = read_nifti(mask)
    in_ras = replace(entry.mask_placement, shape=drawn.data.shape, affine=drawn.affine)
    assert dice(back(entry, in_ras), drawn.data > 0) >= 0.97


def back(entry: StoreEntry, placement: Placement) -> np.ndarray:
    return mask_on_scan(Prediction(entry.mask.astype(np.float32), entry.affine, {}), placement)


@pytest.fixture(scope="module")
def in_a_head(published) -> tuple[dict[Sequence, Volume], np.ndarray]:
    """The sequences of a case with a made-up head around, and the true brain."""
    volumes = scans.published_case(published[1])
    heads = scans.with_head(volumes, seed=201)
    first = next(iter(heads.values()))
    there = scans.on_grid(volumes[Sequence.T1CE], np.eye(4), first.data.shape, first.affine)
    return heads, nonzero_brain(there[None])


LEAST = {Sequence.T1: 0.95, Sequence.T1CE: 0.95, Sequence.T2: 0.9, Sequence.FLAIR: 0.9}


@pytest.mark.parametrize("sequence", Sequence)
def test_the_brain_is_found_in_a_head(in_a_head, sequence) -> None:
    heads, brain = in_a_head
    assert not looks_stripped(heads[sequence])
    assert dice(deepbet_brain(heads[sequence]), brain) > LEAST[sequence]


def test_the_brain_is_found_in_colin27() -> None:
    """One real head: the template of MRIcron (Debian: mricron-data), and its own brain."""
    folder = Path(os.environ.get("GLIOFED_COLIN27", "/usr/share/mricron/templates"))
    if not (folder / "ch2bet.nii.gz").is_file():
        pytest.skip(f"no ch2.nii.gz and ch2bet.nii.gz in {folder}; set GLIOFED_COLIN27")
    head, brain = read_nifti(folder / "ch2.nii.gz"), read_nifti(folder / "ch2bet.nii.gz")
    assert not looks_stripped(head)
    assert dice(deepbet_brain(head), brain.data > 0) > 0.93


def test_a_real_head_of_thick_slices_is_registered_after_a_turn_of_17_degrees(real_data) -> None:
    """Between FLAIR and T2 the patient turned; T2 cannot be registered to T1CE directly."""
    start = real_data / "raw-with-skull/TCGA-FG-6692/TCGA-FG-6692"
    names = {Sequence.T1CE: "T1c", Sequence.T2: "T2", Sequence.FLAIR: "FLAIR"}
    images = {s: Path(f"{start}_{name}.nii.gz") for s, name in names.items()}
    case = Case("6692", "unc", "6692", images, None, Labels())
    entry = prepare_case(case, GridConfig(spacing_mm=(1.0, 1.0, 1.0)), PreparationConfig())
    assert entry.brain == "deepbet"
    assert quality_faults(entry.measures, QualityConfig(), entry.placements) == ()
