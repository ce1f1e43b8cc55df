"""Resampling between voxel grids in RAS millimetres."""

from __future__ import annotations

import math

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.spaces import vox2out_vox
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.study import Spacing

Shape = tuple[int, int, int]
Affine = NDArray[np.float64]


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
    data: NDArray[np.float32], affine: Affine, shape: Shape, target: Affine
) -> NDArray[np.float32]:
    """Trilinear resampling of `data` onto the grid (shape, target); 0 outside the scan.

    For larger voxels, a Gaussian filter first removes frequencies above the new grid's limit; its
    width is that of Cardoso et al. 2015 (Proc. MICCAI, LNCS 9350:81).
    """
    matrix = np.linalg.inv(affine) @ target
    if data.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-4):
        return data
    ratio = np.linalg.norm(
        matrix[:3, :3], axis=1
    )  # new voxel size in old voxels along each old axis
    sigma = [math.sqrt(max(r * r - 1, 0)) / (2 * math.sqrt(2 * math.log(2))) for r in ratio]
    source = ndimage.gaussian_filter(data, sigma) if max(sigma) > 0.1 else data
    out: NDArray[np.float32] = ndimage.affine_transform(
        source, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1, output=np.float32
    )
    return out


def resample_mask(
    mask: NDArray[np.bool_], affine: Affine, shape: Shape, target: Affine
) -> NDArray[np.bool_]:
    """A mask on another grid: trilinear resampling, then a threshold of one half."""
    return resample(mask.astype(np.float32), affine, shape, target) >= 0.5
