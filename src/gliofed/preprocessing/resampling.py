"""Resampling between voxel grids in RAS millimetres."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.preprocessing.brain_extraction import bounding_box
from gliofed.study import Spacing

Shape = tuple[int, int, int]
Affine = NDArray[np.float64]

_TRUNCATE: Final = 4.0
"""Reach of the filter in standard deviations."""
_PLANES: Final = 16
"""Planes resampled at a time, which bounds the memory of their coordinates."""


def target_grid(
    shape: Shape, affine: Affine, spacing_mm: tuple[Spacing, Spacing, Spacing]
) -> tuple[Shape, Affine]:
    """The smallest world-aligned grid of `spacing_mm` that holds a scan; "native" keeps an axis.

    shape, affine: of the scan, its axes already closest to RAS.
    """
    sizes = voxel_sizes(affine)
    wanted = [float(sizes[a]) if s == "native" else float(s) for a, s in enumerate(spacing_mm)]
    out_shape, out_affine = vox2out_vox((shape, affine), wanted)
    x, y, z = (int(n) for n in out_shape)
    return (x, y, z), np.asarray(out_affine, dtype=np.float64)


def resample(
    data: NDArray[np.float32],
    affine: Affine,
    shape: Shape,
    target: Affine,
    every: tuple[int, int, int] = (1, 1, 1),
) -> NDArray[np.float32]:
    """Trilinear resampling of `data` onto the grid (shape, target); 0 outside the scan.

    every: along each axis, only each so many-th voxel of that grid is computed and returned.

    For larger voxels, a Gaussian filter first removes frequencies above the new grid's limit; its
    width is that of Cardoso et al. 2015 (Proc. MICCAI, LNCS 9350:81).
    """
    matrix = np.linalg.inv(affine) @ target
    if data.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-4):
        return data[tuple(slice(None, None, step) for step in every)]
    out: NDArray[np.float32] = ndimage.affine_transform(
        _smoothed(data, matrix),
        matrix[:3, :3] * every,
        matrix[:3, 3],
        output_shape=tuple(-(-n // step) for n, step in zip(shape, every, strict=True)),
        order=1,
        output=np.float32,
    )
    return out


def resample_above(
    data: NDArray[np.float32], affine: Affine, shape: Shape, target: Affine, threshold: float
) -> NDArray[np.bool_]:
    """Where `resample` is at least `threshold`, which is above 0: the same voxels, in less time.

    Interpolation reaches the threshold only next to a voxel that does, so only the box of those is
    resampled.
    """
    matrix = np.linalg.inv(affine) @ target
    if data.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-4):
        return data >= threshold
    source = _smoothed(data, matrix)
    out = np.zeros(shape, bool)
    reached = source >= threshold
    if not reached.any():
        return out
    x, y, z = _box_on_target(bounding_box(reached), matrix, shape)
    for start in range(x.start, x.stop, _PLANES):
        part = slice(start, min(start + _PLANES, x.stop)), y, z
        values = ndimage.map_coordinates(
            source, _coordinates(matrix, part), order=1, output=np.float32
        )
        out[part] = values >= threshold
    return out


def resample_mask(
    mask: NDArray[np.bool_], affine: Affine, shape: Shape, target: Affine
) -> NDArray[np.bool_]:
    """A mask on another grid: trilinear resampling, then a threshold of one half."""
    return resample_above(mask.astype(np.float32), affine, shape, target, 0.5)


def _smoothed(data: NDArray[np.float32], matrix: Affine) -> NDArray[np.float32]:
    """The Gaussian filter of `resample`, where it is needed. matrix: new voxels to old ones."""
    ratio = np.linalg.norm(
        matrix[:3, :3], axis=1
    )  # new voxel size in old voxels along each old axis
    sigma = [math.sqrt(max(r * r - 1, 0)) / (2 * math.sqrt(2 * math.log(2))) for r in ratio]
    signal = data != 0
    if max(sigma) <= 0.1 or not signal.any():
        return data
    reach = [2 * int(_TRUNCATE * s + 0.5) for s in sigma]  # beyond the kernel there is only 0
    box = tuple(
        slice(max(0, part.start - far), part.stop + far)
        for part, far in zip(bounding_box(signal), reach, strict=True)
    )
    out = np.zeros(data.shape, data.dtype)
    out[box] = ndimage.gaussian_filter(np.ascontiguousarray(data[box]), sigma, truncate=_TRUNCATE)
    return out


def _box_on_target(
    box: tuple[slice, slice, slice], matrix: Affine, shape: Shape
) -> tuple[slice, slice, slice]:
    """The part of the new grid (shape) that lies within one old voxel of a box of old ones."""
    ends = np.array([[part.start - 1, part.stop] for part in box], float)
    corners = np.stack(np.meshgrid(*ends), axis=-1).reshape(-1, 3)
    there = apply_affine(np.linalg.inv(matrix), corners)
    low, high = np.floor(there.min(axis=0)) - 1, np.ceil(there.max(axis=0)) + 2
    x, y, z = (
        slice(int(np.clip(a, 0, n)), int(np.clip(b, 0, n)))
        for a, b, n in zip(low, high, shape, strict=True)
    )
    return x, y, z


def _coordinates(matrix: Affine, box: tuple[slice, slice, slice]) -> NDArray[np.float64]:
    """(3, X, Y, Z): old voxel of each new one, summed in the order of `affine_transform`."""
    i, j, k = np.ogrid[box]
    return np.stack([((i * a + j * b) + k * c) + d for a, b, c, d in matrix[:3]])
