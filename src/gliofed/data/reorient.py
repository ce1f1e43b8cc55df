"""Reorders the axes of an image to those of a grid that it shares, without resampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gliofed.errors import DataError

Shape = tuple[int, int, int]
Array = NDArray[np.float64]
_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True)
class NamedGrid:
    """A grid. name, cure: for error messages. affine: voxel to RAS mm."""

    name: str
    shape: Shape
    affine: Array
    cure: str


@dataclass(frozen=True)
class _AxisFit:
    """How the axes of two grids correspond.

    orientation: of nibabel, from the first grid's axes to the second's. shape: along the latter.
    off_mm, off_voxels: largest distance of a corner from its place in the second grid; voxels
    along the worst axis.
    """

    orientation: Array
    shape: Shape
    off_mm: float
    off_voxels: float


def reorient_to_grid(
    data: NDArray[_Kind], affine: Array, grid: NamedGrid, what: str
) -> NDArray[_Kind]:
    """The data with its axes in the order and direction of `grid`; nothing is resampled.

    data: (X, Y, Z). affine: voxel to RAS mm. what: name of the data for errors. Raises
    DataError: a singular affine, another number of voxels, or an offset of half a voxel anywhere.
    """
    fit = _fit(data.shape, affine, grid.affine, what)
    if fit.shape != grid.shape:
        size, expected = (" x ".join(map(str, s)) for s in (fit.shape, grid.shape))
        raise DataError(
            f"{what}: has {size} voxels along the axes of {grid.name}, "
            f"expected {expected}; {grid.cure}"
        )
    if fit.off_voxels >= 0.5:
        raise DataError(
            f"{what}: lies up to {fit.off_mm:.2f} mm ({fit.off_voxels:.2f} voxels) off "
            f"{grid.name}, expected less than half a voxel; {grid.cure}"
        )
    turned: NDArray[_Kind] = nib.apply_orientation(data, fit.orientation)
    return turned


def _fit(shape: tuple[int, ...], affine: Array, other: Array, what: str) -> _AxisFit:
    orientation = nib.io_orientation(np.linalg.inv(other) @ affine)
    if np.isnan(orientation).any():
        raise DataError(f"{what}: its affine is singular; set a valid sform or qform")
    x, y, z = (int(n) for n in np.array(shape)[np.argsort(orientation[:, 0])])
    turned = affine @ nib.orientations.inv_ornt_aff(orientation, shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array([x, y, z]) - 1)
    off = (turned - other) @ np.c_[corners, np.ones(8)].T
    voxels = np.linalg.inv(other) @ off
    return _AxisFit(
        orientation, (x, y, z), float(np.linalg.norm(off, axis=0).max()), float(abs(voxels).max())
    )
