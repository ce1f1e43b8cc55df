"""Reading NIfTI: 3D, finite, with a frame that can be trusted, or one clear error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from gliofed.errors import DataError


@dataclass(frozen=True)
class Volume:
    """A 3D image. data: (X, Y, Z) float32; affine: voxel to RAS millimetres, (4, 4)."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]


def read_nifti(path: Path) -> Volume:
    """Read a `.nii` or `.nii.gz` file, reoriented to the closest RAS axes without resampling.

    Raises DataError naming the file: absent or not NIfTI, cut short, not 3D (a trailing axis of
    length 1 is dropped), an axis of length 0, an affine that is singular or not finite, or
    voxels that are NaN or infinite.
    """
    try:
        image = nib.load(path)
        if image.ndim > 3 and set(image.shape[3:]) == {1}:
            image = image.slicer[(slice(None),) * 3 + (0,) * (image.ndim - 3)]
        _check_header(path, image.shape, image.affine)
        image = nib.as_closest_canonical(image)
        data = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ImageFileError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); copy the file again") from None
    if not np.isfinite(data).all():
        raise DataError(f"{path}: has NaN or infinite voxels; export the series again")
    return Volume(data, np.asarray(image.affine, dtype=np.float64))


def stored_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine (voxel to RAS mm) of a readable file, its axes as they are stored."""
    image = nib.load(path)
    x, y, z = image.shape[:3]
    return (x, y, z), np.asarray(image.affine, dtype=np.float64)


def _check_header(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: expected one 3D volume, found shape {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise DataError(f"{path}: its affine is singular or not finite; set a valid sform or qform")
