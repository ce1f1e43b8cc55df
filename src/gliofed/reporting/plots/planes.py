"""Slices of a RAS volume, turned as radiologists read them: the patient's right, or front, on the
left."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

PLANES: Final = ("axial", "coronal", "sagittal")
Kind = TypeVar("Kind", bound=np.generic)


def largest_section(volume: NDArray[np.bool_]) -> tuple[int, int, int]:
    """The slice along each of X, Y, Z with most of `volume`; the first if it is empty."""
    x, y, z = (int(volume.sum(axis=tuple({0, 1, 2} - {a})).argmax()) for a in range(3))
    return x, y, z


def slice_of(volume: NDArray[Kind], plane: str, at: tuple[int, int, int]) -> NDArray[Kind]:
    """One plane of (X, Y, Z) through the voxel `at`, rows downwards from head or front."""
    x, y, z = at
    if plane == "axial":
        return volume[::-1, ::-1, z].T
    return (volume[::-1, y, ::-1] if plane == "coronal" else volume[x, ::-1, ::-1]).T


def aspect(affine: NDArray[np.float64], plane: str) -> float:
    """Height by width of a plane's pixels."""
    x, y, z = (float(s) for s in voxel_sizes(affine))
    return {"axial": y / x, "coronal": z / x, "sagittal": z / y}[plane]
