"""Whether pixels confirm that one T1 has contrast: made-up heads whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_heads import SHAPE, head

from gliofed.data.enhancement import (
    CONTRADICTED,
    contradicts,
    enhancement_score,
    reduced,
)
from gliofed.data.nifti import Volume
from gliofed.data.small_motion import align


def turned(image: Volume, degrees: float = 4, shift=(3.0, -2.0, 2.0)) -> Volume:
    """The head as if the patient had moved: the world position of each voxel changes."""
    angle = np.deg2rad(degrees)
    move = np.eye(4)
    move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    move[:3, 3] = shift
    return Volume(image.data, move @ image.affine)


@pytest.mark.parametrize("skull", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_contrast_is_confirmed_and_a_swap_contradicted(skull, moved) -> None:
    plain, contrast = head(False, skull), head(True, skull, seed=1)
    plain, contrast = (plain, turned(contrast)) if moved else (plain, contrast)
    right = enhancement_score(plain, contrast)
    assert right is not None
    assert right > 0.5
    assert contradicts(enhancement_score(contrast, plain))


def test_the_scale_of_intensities_does_not_matter() -> None:
    plain, contrast = head(False), head(True, seed=1)
    dark = Volume(contrast.data * 0.2, contrast.affine)
    assert enhancement_score(plain, dark) == pytest.approx(enhancement_score(plain, contrast), 1e-3)


def test_a_scan_of_too_few_voxels_is_not_measured() -> None:
    plain, contrast = head(False), head(True)
    few = tuple(slice(28, 34) for _ in range(3))
    crop = [Volume(v.data[few], v.affine) for v in (plain, contrast)]
    assert enhancement_score(*crop) is None
    assert not contradicts(None)
    empty = Volume(np.zeros(SHAPE, np.float32), plain.affine)
    assert enhancement_score(empty, contrast) is None


def test_both_sides_of_the_threshold() -> None:
    assert not contradicts(CONTRADICTED)
    assert contradicts(CONTRADICTED - 0.01)


def test_a_known_motion_is_found() -> None:
    plain = head(False)
    moved = turned(head(True, seed=1))
    found = align(plain, moved, plain.data != 0)
    want = moved.affine @ np.linalg.inv(plain.affine)
    corners = np.array([[x, y, z, 1] for x in (-60, 60) for y in (-75, 75) for z in (-60, 60)])
    off = np.linalg.norm(((found - want) @ corners.T)[:3], axis=0)
    assert off.max() < 1.5  # half a voxel
    assert np.allclose(align(plain, moved, np.zeros(SHAPE, bool)), np.eye(4))


def test_blocks_keep_their_place() -> None:
    affine = np.diag([1.0, 1.5, 5.0, 1.0])
    data = np.zeros((9, 6, 4), np.float32) + 1
    data[0] = 0
    small = reduced(Volume(data, affine))
    assert small.data.shape == (3, 3, 4)
    assert (small.data[0] == 0).all()
    assert (small.data[1:] == 1).all()
    assert np.allclose(small.affine[:3, 3], [1, 0.75, 0])  # the middle of the first block
    assert np.allclose(np.diag(small.affine), [3, 3, 5, 1])
