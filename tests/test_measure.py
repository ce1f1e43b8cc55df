import numpy as np
import pytest
from scipy import ndimage

from gliofed.preprocessing.alignment import alignment, normalised_mutual_information
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.study import QualityConfig
from gliofed.types import Placement, PreparationMeasures, Sequence

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def anatomy(seed: int, shape=(48, 56, 44)):
    """Tissue of structures of about 6 mm, inside an ellipsoid, and the ellipsoid."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape) - (np.array(shape) / 2)[:, None, None, None]
    inside = (grid / (np.array(shape) / 2.2)[:, None, None, None]) ** 2
    brain = inside.sum(axis=0) < 1
    tissue = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    return (100 + 20 * tissue / tissue.std()).astype(np.float32), brain


def test_scans_of_one_patient_lie_on_each_other_and_not_when_moved() -> None:
    one, brain = anatomy(0)
    other = (150 - one) ** 2 / 50  # another contrast of the same tissue
    other = (other + np.random.default_rng(9).normal(0, 5, one.shape)).astype(np.float32)
    asked = QualityConfig().alignment
    assert alignment(one, other, brain, AFFINE) > 2 * asked
    moved = np.roll(other, 4, axis=1)  # 8 mm
    assert alignment(one, moved, brain, AFFINE) < asked
    stranger, _ = anatomy(1)
    assert alignment(one, stranger, brain, AFFINE) < asked


def test_no_structure_is_no_alignment() -> None:
    one, brain = anatomy(0)
    assert alignment(one, np.ones_like(one), brain, AFFINE) == 0
    assert alignment(one, one, np.zeros_like(brain), AFFINE) == 0
    assert normalised_mutual_information(one, np.ones_like(one), brain) == 1
    assert normalised_mutual_information(one, one, brain) == pytest.approx(2, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1.0, 2.0, 4.0])
def test_the_grid_s_voxels_do_not_decide(size) -> None:
    one, brain = anatomy(0)
    zoom = 2.0 / size
    fine, there = ndimage.zoom(one, zoom, order=1), ndimage.zoom(brain.astype(float), zoom) > 0.5
    noise = np.random.default_rng(2).normal(0, 4, fine.shape).astype(np.float32)
    affine = np.diag([size, size, size, 1.0])
    assert alignment(fine, 200 - fine + noise, there, affine) > QualityConfig().alignment


@pytest.mark.parametrize(("slices", "partial"), [(99, True), (100, False)])
def test_a_small_brain_in_a_scan_of_part_of_the_head_is_told_as_such(slices, partial) -> None:
    place = Placement((64, 64, slices), np.diag([1.8, 1.8, 1.0, 1]), np.eye(4))
    small = PreparationMeasures(0.45, None, {})
    (why,) = quality_faults(small, QualityConfig(), {Sequence.T2: place})
    assert (
        "T2 covers 115 x 115 x 99 mm, less than a head; use scans of the whole head" in why
    ) == (partial)
    assert ("look at its contour" in why) != partial
    whole = PreparationMeasures(1.3, None, {})
    assert quality_faults(whole, QualityConfig(), {Sequence.T2: place}) == ()


def test_each_measure_has_its_bound_and_its_cure() -> None:
    asked = QualityConfig(brain_litres=(0.8, 2.2), template_dice=0.85, alignment=1.6)
    sound = PreparationMeasures(1.4, 0.85, {Sequence.T2: 1.6})
    assert quality_faults(sound, asked, {}) == ()
    assert (
        quality_faults(PreparationMeasures(0.8, None, {}), asked, {})
        == quality_faults(PreparationMeasures(2.2, None, {}), asked, {})
        == ()
    )
    for measures, words in (
        (PreparationMeasures(0.79, 0.9, {}), "0.79 L"),
        (PreparationMeasures(2.21, 0.9, {}), "2.21 L"),
        (PreparationMeasures(1.4, 0.84, {}), "Dice 0.84"),
        (PreparationMeasures(1.4, 0.9, {Sequence.T2: 1.59, Sequence.T1: 3.0}), "T2 is not aligned"),
    ):
        (only,) = quality_faults(measures, asked, {})
        assert words in only
        assert ";" in only  # and what to do
