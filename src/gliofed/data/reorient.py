"""Voxels brought onto the grid they lie on: the same ones, their axes in another order."""

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
    """name: in words, for errors. affine: voxel to RAS mm. cure: what to do about another grid."""

    name: str
    shape: Shape
    affine: Array
    cure: str


@dataclass(frozen=True)
class _AxisFit:
    """turn: nibabel's orientation, from a grid's axes to the other's. shape: along those.

    off_mm, off_voxels: the farthest that a corner lies from where the other grid has it; voxels
    along the worst axis.
    """

    turn: Array
    shape: Shape
    off_mm: float
    off_voxels: float


def reorient_to_grid(
    data: NDArray[_Kind], affine: Array, grid: NamedGrid, what: str
) -> NDArray[_Kind]:
    """(X, Y, Z) in any order of axes, with the axes as `grid` has them; nothing is resampled.

    affine: voxel to RAS mm. what: the data in words. Raises DataError: a singular affine, another
    number of voxels, or half a voxel off anywhere.
    """
    found = _fit(data.shape, affine, grid.affine, what)
    if found.shape != grid.shape:
        have, want = (" x ".join(map(str, s)) for s in (found.shape, grid.shape))
        raise DataError(
            f"{what}: has {have} voxels along the axes of {grid.name}, expected {want}; {grid.cure}"
        )
    if found.off_voxels >= 0.5:
        raise DataError(
            f"{what}: lies up to {found.off_mm:.2f} mm ({found.off_voxels:.2f} voxels) off "
            f"{grid.name}, expected less than half a voxel; {grid.cure}"
        )
    turned: NDArray[_Kind] = nib.apply_orientation(data, found.turn)
    return turned


def _fit(shape: tuple[int, ...], affine: Array, other: Array, what: str) -> _AxisFit:
    turn = nib.io_orientation(np.linalg.inv(other) @ affine)
    if np.isnan(turn).any():
        raise DataError(f"{what}: its affine is singular; set a valid sform or qform")
    x, y, z = (int(n) for n in np.array(shape)[np.argsort(turn[:, 0])])
    turned = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array([x, y, z]) - 1)
    off = (turned - other) @ np.c_[corners, np.ones(8)].T
    voxels = np.linalg.inv(other) @ off
    return _AxisFit(
        turn, (x, y, z), float(np.linalg.norm(off, axis=0).max()), float(abs(voxels).max())
    )
