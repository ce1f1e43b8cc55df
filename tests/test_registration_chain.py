"""A sequence that cannot be registered directly is registered through another one."""

import numpy as np
import pytest
from scipy import ndimage

from gliofed.data.nifti import Volume
from gliofed.preprocessing import registration_chain as chain
from gliofed.preprocessing.alignment import alignment
from gliofed.preprocessing.resampling import resample
from gliofed.types import Sequence


def turned(degrees: float) -> np.ndarray:
    """A turn about the head's axis."""
    angle = np.deg2rad(degrees)
    out = np.eye(4)
    out[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return out


@pytest.fixture
def scans():
    """One head, and the same one in other positions of its scanner."""
    rng = np.random.default_rng(3)
    data = ndimage.gaussian_filter(rng.normal(size=(48, 48, 32)), 2).astype(np.float32)
    data = data / data.std() + 10
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = (-72, -72, -48)
    where = {Sequence.FLAIR: turned(8), Sequence.T2: turned(-9)}
    moved = {s: Volume(data, m @ affine) for s, m in where.items()}
    return Volume(data, affine), np.ones(data.shape, bool), moved, where


@pytest.mark.parametrize("spacing_mm", [3.0, 1.0, 0.7])
def test_alignment_needs_only_the_voxels_that_it_reads(scans, spacing_mm) -> None:
    reference, _, moved, where = scans
    affine = reference.affine @ np.diag([spacing_mm / 3] * 3 + [1.0])
    reference = Volume(ndimage.zoom(reference.data, 3 / spacing_mm, order=1), affine)
    brain = np.ones(reference.data.shape, bool)
    scan, matrix = moved[Sequence.FLAIR], where[Sequence.FLAIR]
    image = resample(scan.data, scan.affine, reference.data.shape, matrix @ affine)
    whole = alignment(reference.data, image, brain, affine)
    assert whole > 1.2
    assert chain._alignment(reference, brain, scan, matrix) == pytest.approx(whole, rel=1e-3)


def test_a_poor_scan_takes_the_way_through_a_good_one(scans, monkeypatch) -> None:
    reference, brain, moved, where = scans
    asked = []

    def register(fixed, moving, inside):
        asked.append((fixed, moving))
        return where[Sequence.T2] @ np.linalg.inv(where[Sequence.FLAIR])

    monkeypatch.setattr(chain, "register_rigid", register)
    direct = {Sequence.FLAIR: where[Sequence.FLAIR], Sequence.T2: turned(25)}
    found = chain.register_through_others(reference, brain, moved, direct)
    assert asked == [(moved[Sequence.FLAIR], moved[Sequence.T2])]
    assert np.allclose(found[Sequence.T2], where[Sequence.T2])
    assert found[Sequence.FLAIR] is direct[Sequence.FLAIR]


def test_a_way_that_is_no_better_and_one_that_fails_change_nothing(scans, monkeypatch) -> None:
    reference, brain, moved, where = scans
    direct = {Sequence.FLAIR: where[Sequence.FLAIR], Sequence.T2: turned(25)}
    monkeypatch.setattr(chain, "register_rigid", lambda *_: turned(90))
    assert chain.register_through_others(reference, brain, moved, direct) == direct

    def fails(*_):
        raise ValueError("no common part")

    monkeypatch.setattr(chain, "register_rigid", fails)
    assert chain.register_through_others(reference, brain, moved, direct) == direct


def test_scans_that_lie_well_are_not_registered_again(scans, monkeypatch) -> None:
    reference, brain, moved, where = scans
    monkeypatch.setattr(chain, "register_rigid", lambda *_: pytest.fail("registered"))
    assert chain.register_through_others(reference, brain, moved, where) == where
