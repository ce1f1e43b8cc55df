"""What is computed in a box, or in threads, has the bits of the plain computation of the whole."""

import math

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gliofed.data.nifti import read_nifti
from gliofed.preprocessing.alignment import alignment
from gliofed.preprocessing.recipe import prepare_case
from gliofed.preprocessing.resampling import resample, resample_above
from gliofed.study import GridConfig, PreparationConfig
from gliofed.types import SEQUENCES, Case, Labels

STRIPPED = PreparationConfig(brain="stripped", register=False, space="scanner", bias=False)
SHAPE = (40, 44, 32)


def plain_resampled(data, affine, shape, target):
    matrix = np.linalg.inv(affine) @ target
    if data.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-4):
        return data
    ratio = np.linalg.norm(matrix[:3, :3], axis=1)
    sigma = [math.sqrt(max(r * r - 1, 0)) / (2 * math.sqrt(2 * math.log(2))) for r in ratio]
    data = ndimage.gaussian_filter(data, sigma) if max(sigma) > 0.1 else data
    return ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1, output=np.float32
    )


def plain_normalised(image, brain):
    inside = image[brain].astype(np.float64)
    scaled = np.clip((image - float(inside.mean())) / float(inside.std()), -10, 10)
    return np.where(brain, scaled, 0).astype(np.float32)


def plain_alignment(first, second, brain):
    """Of voxels of 1 mm: every second voxel, shifts of three of these."""
    first, second, brain = (a[::2, ::2, ::2] for a in (first, second, brain))

    def information(a, b, inside):
        both = inside & (a != 0) & (b != 0)
        if not both.any():
            return 1.0
        bins = []
        for values in (a[both], b[both]):
            low, high = np.percentile(values, [1, 99])
            bins.append(np.clip((values - low) / max(high - low, 1e-12), 0, 0.999) * 32)
        counts, _, _ = np.histogram2d(*bins, 32, [[0, 32]] * 2)
        each = []
        for part in (counts.sum(0), counts.sum(1), counts.ravel()):
            share = part[part > 0] / part.sum()
            each.append(float(-(share * np.log(share)).sum()))
        return (each[0] + each[1]) / each[2]

    near = []
    for axis in range(3):
        head, tail = ([slice(None)] * 3 for _ in range(2))
        head[axis], tail[axis] = slice(3, None), slice(None, -3)
        head, tail = tuple(head), tuple(tail)
        near.append(information(first[head], second[tail], brain[head]))
        near.append(information(first[tail], second[head], brain[tail]))
    return (information(first, second, brain) - 1) / (float(np.mean(near)) - 1)


def stripped_case(folder, shift=0.0) -> Case:
    """Four stripped sequences of one made-up head, with a speck outside of it and a hole inside."""
    rng = np.random.default_rng(3)
    grid = np.indices(SHAPE) - np.reshape([22.3, 20.1, 15.6], (3, 1, 1, 1))
    brain = ((grid / np.reshape([14, 16, 11], (3, 1, 1, 1))) ** 2).sum(axis=0) < 1
    brain[20:22, 20:22, 15] = False
    brain[1:3, 1:3, 1] = True
    tissue = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5) * 400 + 500
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])  # flipped, as the data sets of BraTS
    affine[:3, 3] = 20.0 + shift, 20.0, -16.0
    images = {}
    for number, sequence in enumerate(SEQUENCES):
        data = np.where(brain, tissue * (number + 1) % 997 + rng.normal(0, 9, SHAPE), 0)
        images[sequence] = folder / f"{sequence.value}.nii.gz"
        nib.save(nib.Nifti1Image(data.astype(np.int16), affine), images[sequence])
    return Case("c", "h", "c", images, None, Labels({}))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 2.0, "native"), (0.8, 1.0, 3.0)])
def test_a_prepared_case_has_the_bits_of_the_plain_computation(tmp_path, spacing) -> None:
    case = stripped_case(tmp_path)
    entry = prepare_case(case, GridConfig(spacing_mm=spacing), STRIPPED)
    volumes = [read_nifti(case.images[s]) for s in SEQUENCES]
    start = np.round(np.linalg.inv(volumes[0].affine) @ entry.affine[:, 3], 6)
    whole = entry.affine.copy()
    sizes = np.diag(entry.affine)[:3]
    first = np.floor((entry.affine[:3, 3] - volumes[0].affine[:3, 3]) / sizes + 1e-6)
    whole[:3, 3] = entry.affine[:3, 3] - sizes * first
    shape = tuple(int(n) for n in np.ceil((np.array(SHAPE) - 1) / sizes - 1e-9) + 1)
    images = [plain_resampled(v.data, v.affine, shape, whole) for v in volumes]
    signal = np.any([i != 0 for i in images], axis=0)
    parts, _ = ndimage.label(signal)
    brain = ndimage.binary_fill_holes(parts == np.bincount(parts[parts > 0]).argmax())
    box = ndimage.find_objects(brain.astype(np.uint8))[0]
    assert tuple(b.start for b in box) == tuple(first), start
    expected = np.stack([plain_normalised(i, brain & (i != 0)) for i in images])
    np.testing.assert_array_equal(entry.image, expected[(slice(None), *box)].astype(np.float16))
    assert brain.sum() < signal.sum() + 10  # the speck is left out, the hole filled
    assert entry.image.any(axis=(1, 2, 3)).all()


def test_the_measure_of_alignment_in_the_brains_box_is_that_of_the_whole(tmp_path) -> None:
    case = stripped_case(tmp_path)
    first, second = (read_nifti(case.images[s]) for s in SEQUENCES[:2])
    brain = ndimage.binary_erosion(first.data > 0, iterations=2)
    assert brain.any()
    found = alignment(first.data, second.data, brain, first.affine)
    assert found == plain_alignment(first.data, second.data, brain)


@pytest.mark.parametrize("size", [0.5, 1.0, 1.7, 4.0])
@pytest.mark.parametrize("binary", [True, False])
def test_a_mask_resampled_in_its_box_is_that_of_the_whole(size, binary) -> None:
    rng = np.random.default_rng(7)
    data = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2).astype(np.float32)
    data = np.clip(0.45 + data / data.std() / 6, 0, 1)
    data[:6], data[:, -9:] = 0.1, 0.2
    if binary:
        data = (data >= 0.5).astype(np.float32)
    angle = np.radians(8)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    for rotation in (np.eye(4), turn):
        target = rotation @ np.diag([size, size, 1.0, 1.0])
        target[:3, 3] = 3.1, -2.5, 0.5
        whole = resample(data, np.eye(4), (60, 50, 30), target) >= 0.5
        assert 0 < whole.sum() < whole.size
        found = resample_above(data, np.eye(4), (60, 50, 30), target, 0.5)
        np.testing.assert_array_equal(found, whole)


def test_where_nothing_reaches_the_threshold_no_voxel_does() -> None:
    low = np.full(SHAPE, 0.4, np.float32)
    assert not resample_above(low, np.eye(4), (9, 9, 9), np.diag([2.0, 2.0, 2.0, 1.0]), 0.5).any()
    assert resample_above(low, np.eye(4), (9, 9, 9), np.diag([2.0, 2.0, 2.0, 1.0]), 0.3).any()
