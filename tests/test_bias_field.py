"""Bias fields of known shape on a made-up brain of two tissues."""

import numpy as np
import pytest
from scipy import ndimage

from gliofed.data.nifti import Volume
from gliofed.preprocessing.bias_field import AROUND_MM, _interpolation, correct_bias_field

SIDE_MM = 4.0


@pytest.fixture(scope="module")
def head():
    """A brain of 180 mm in the middle of 256 mm; around it a skin that is no brain."""
    shape = (64, 64, 64)
    mm = (np.indices(shape) - 31.5) * SIDE_MM
    radius = np.linalg.norm(mm.T, axis=-1).T
    folds = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=shape), 1.5)
    brain = radius < 90
    data = np.where(brain, np.where(folds > 0, 100.0, 70.0), 0) + 50.0 * (radius > 115)
    affine = np.diag([SIDE_MM] * 3 + [1.0])
    field = np.exp(0.3 * np.sin(mm[0] / 90) + 0.2 * np.cos(mm[1] / 80))
    return Volume(data.astype(np.float32), affine), brain, field.astype(np.float32)


def test_a_known_field_is_taken_out(head) -> None:
    plain, brain, field = head
    found = correct_bias_field(Volume(plain.data * field, plain.affine), brain)
    left = np.log(found.data[brain] / plain.data[brain])
    assert np.log(field[brain]).std() > 0.12
    assert left.std() < 0.01


def test_what_is_far_from_the_brain_stays_as_it_is(head) -> None:
    plain, brain, field = head
    shaded = Volume(plain.data * field, plain.affine)
    found = correct_bias_field(shaded, brain)
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    more = int(np.ceil(AROUND_MM / SIDE_MM))
    far = np.ones(brain.shape, bool)
    far[tuple(slice(part.start - more, part.stop + more) for part in box)] = False
    assert (shaded.data[far] > 0).any()
    np.testing.assert_array_equal(found.data[far], shaded.data[far])


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_without_a_brain_or_without_signal_nothing_changes(head, scale) -> None:
    plain, brain, _ = head
    volume = Volume(plain.data * np.float32(scale), plain.affine)
    found = correct_bias_field(volume, brain if scale == 0 else np.zeros_like(brain))
    assert found is volume


@pytest.mark.parametrize("step", [1, 6])
def test_a_smooth_curve_is_interpolated_between_coarse_voxels(step) -> None:
    """24 coarse voxels, the first at fine voxel 2.5; a wave 12 coarse voxels long."""
    first, part = 2.5, slice(5 * step + 3, 18 * step)
    coarse = np.sin(2 * np.pi * np.arange(24) / 12)
    fine = (np.arange(part.start, part.stop) - first) / step
    found = _interpolation(24, part, first, step) @ coarse
    np.testing.assert_allclose(found, np.sin(2 * np.pi * fine / 12), atol=2e-3)
