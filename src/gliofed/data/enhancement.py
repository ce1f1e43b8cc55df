"""Measures whether one T1 image is brighter in vessels and tumour than another of its study.

Contrast agent brightens vessels, choroid plexus, dura, mucosa and most high-grade tumours, and
darkens nothing. Both images are aligned, and scaled by their own median and 10th to 90th
percentile over the brain. The difference d about its median then has a long right tail:
sum(d^3) / sum(|d|^3) is near 1, near 0 where neither image or both have contrast, and near -1
where the first has it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.nifti import Volume
from gliofed.data.small_motion import align, sample

CONTRADICTED: Final = -0.1
"""A lower score is a contradiction."""
GRID_MM: Final = 3.0
WHOLE_ML: Final = 600.0
"""Less tissue is a crop of a brain, not a head."""
DEPTH_MM: Final = 18.0
"""The brain of a head that was not stripped: deeper than scalp and skull."""
FEWEST: Final = 500
"""Voxels of the grid; fewer are not measured."""
_STRIPPED_SHARE: Final = 0.2


def contradicts(score: float | None) -> bool:
    """Whether the pixels contradict that the second image has contrast; not where None."""
    return score is not None and score < CONTRADICTED


def enhancement_score(plain: Volume, contrast: Volume) -> float | None:
    """From -1 to 1: above 0 where `contrast` enhances; None where too little can be compared.

    Both images share a frame of reference. Small motion between them is corrected, but not in a
    crop of a brain, which holds too little to align.
    """
    whole = _ml(plain) > WHOLE_ML
    fixed, moving = (reduced(plain), reduced(contrast)) if whole else (plain, contrast)
    skull = whole and not any(_is_stripped(v) for v in (plain, contrast))
    tissue = _head(fixed.data) if skull else fixed.data != 0
    move = align(fixed, moving, tissue) if whole else np.eye(4)
    brain = _deep(tissue, fixed.affine) if skull else tissue
    brain &= _reached(contrast, fixed, move, brain)
    if np.count_nonzero(brain) < FEWEST:
        return None
    return _skew(sample(moving, _world(fixed, move, brain)), fixed.data[brain])


def reduced(image: Volume) -> Volume:
    """Means of whole blocks of voxels, of at most `GRID_MM` along each axis; 0 where any is 0."""
    size = np.linalg.norm(image.affine[:3, :3], axis=0)
    step = np.maximum(np.floor(GRID_MM / size + 0.01).astype(int), 1)
    step = np.minimum(step, image.data.shape)
    shape = np.array(image.data.shape) // step
    x, y, z = shape * step
    blocks = image.data[:x, :y, :z].reshape(np.stack([shape, step], axis=1).ravel())
    data = np.where((blocks == 0).any(axis=(1, 3, 5)), 0, blocks.mean(axis=(1, 3, 5)))
    affine = image.affine @ np.diag([*step, 1.0])
    affine[:3, 3] = image.affine[:3, :3] @ ((step - 1) / 2) + image.affine[:3, 3]
    return Volume(data.astype(np.float32), affine)


def _ml(image: Volume) -> float:
    """Volume of the voxels that are not 0."""
    voxel = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
    return np.count_nonzero(image.data) * voxel


def _world(
    grid: Volume, move: NDArray[np.float64], where: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """World points of the moving image at voxels of the fixed one, (N, 3)."""
    to_image = move @ grid.affine
    points: NDArray[np.float64] = np.argwhere(where) @ to_image[:3, :3].T + to_image[:3, 3]
    return points


def _reached(
    contrast: Volume, grid: Volume, move: NDArray[np.float64], where: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Voxels of the grid all of whose neighbours in the other image are not 0."""
    mask = Volume((contrast.data != 0).astype(np.float32), contrast.affine)
    out = np.zeros(where.shape, bool)
    out[where] = sample(mask, _world(grid, move, where)) > 0.99
    return out


def _skew(enhanced: NDArray[np.floating], plain: NDArray[np.floating]) -> float:
    difference = _standard(enhanced) - _standard(plain)
    difference -= np.median(difference)
    cubes = difference**3
    total = float(np.abs(cubes).sum())
    return float(cubes.sum()) / total if total else 0.0


def _standard(values: NDArray[np.floating]) -> NDArray[np.float64]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    standard: NDArray[np.float64] = (values - middle) / max(high - low, 1e-6)
    return standard


def _is_stripped(image: Volume) -> bool:
    """Whether a fifth of the image is exactly 0 and no corner is not."""
    corners = image.data[np.ix_(*([0, n - 1] for n in image.data.shape))]
    return bool((corners == 0).all() and np.mean(image.data == 0) > _STRIPPED_SHARE)


def _head(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Between the outermost tissue of each line along each axis."""
    seen = values[values > 0]
    if not seen.size:
        return np.zeros(values.shape, bool)
    tissue = values > np.percentile(seen, 90) / 4
    inside = np.ones(values.shape, bool)
    for axis in range(3):
        ahead = np.maximum.accumulate(tissue, axis)
        behind = np.flip(np.maximum.accumulate(np.flip(tissue, axis), axis), axis)
        inside &= ahead & behind
    return inside


def _deep(head: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Voxels at least `DEPTH_MM` from the surface along each axis; the image's edge is none."""
    deep = head
    for axis, size in enumerate(np.linalg.norm(affine[:3, :3], axis=0)):
        reach = round(DEPTH_MM / float(size))
        padded = np.pad(deep, [(reach * (a == axis),) * 2 for a in range(3)], mode="edge")
        length = head.shape[axis]
        shifts = (padded.take(range(k, k + length), axis=axis) for k in range(2 * reach + 1))
        deep = np.logical_and.reduce(list(shifts))
    return deep
