"""Compares the grids of reduced scans, and resamples one scan onto another's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.validation.nifti_geometry import Affine
from gliofed.validation.scan import CheckedScan

_SAME_MM = 0.1


def same_grid(a: CheckedScan, b: CheckedScan) -> bool:
    """Equal shapes, and corners less than 0.1 mm apart."""
    if a.affine is None or b.affine is None or a.shape != b.shape:
        return False
    corners = np.array(np.meshgrid(*([0, n - 1] for n in a.small.shape))).reshape(3, -1)
    points = np.vstack([corners, np.ones(8)])
    distance = np.abs(((a.affine - b.affine) @ points)[:3]).max()
    return bool(distance < _SAME_MM)


def resample_onto(
    scan: CheckedScan, grid: CheckedScan
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`scan` on the grid of `grid` by nearest neighbour, and the voxels that lie inside it.

    Both need an affine.
    """
    if same_grid(scan, grid):
        return scan.small, np.ones(scan.small.shape, bool)
    assert scan.affine is not None and grid.affine is not None  # noqa: PT018  (for mypy)
    matrix = (np.linalg.inv(scan.affine) @ grid.affine).astype(np.float32)
    axes = np.ogrid[tuple(slice(0, n) for n in grid.small.shape)]
    inside = np.ones(grid.small.shape, bool)
    index = []
    for row, length in zip(matrix[:3], scan.small.shape, strict=True):
        place = row[3] + sum(r * a for r, a in zip(row[:3], axes, strict=True))
        np.rint(place, out=place)
        inside &= (place >= 0) & (place < length)
        index.append(np.clip(place, 0, length - 1).astype(np.intp))
    values = scan.small[tuple(index)]
    return np.where(inside, values, np.float32(0)), inside


def reorient_to_ras(data: NDArray[np.generic], affine: Affine) -> NDArray[np.generic]:
    """The array with its axes permuted and flipped to those nearest to R, A, S."""
    order, flips = _axis_order(affine)
    turned = data.transpose(order)
    return turned[tuple(slice(None, None, flip) for flip in flips)]


def ras_voxel_size(affine: Affine) -> tuple[float, float, float]:
    """Voxel size in mm along the axes of `reorient_to_ras`."""
    size = np.linalg.norm(affine[:3, :3], axis=0)[list(_axis_order(affine)[0])]
    return float(size[0]), float(size[1]), float(size[2])


def _axis_order(affine: Affine) -> tuple[tuple[int, ...], tuple[int, ...]]:
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    free_axes = [0, 1, 2]
    order, flips = [], []
    for world in range(3):
        axis = max(free_axes, key=lambda a: abs(cosines[world, a]))
        free_axes.remove(axis)
        order.append(axis)
        flips.append(1 if cosines[world, axis] >= 0 else -1)
    return tuple(order), tuple(flips)
