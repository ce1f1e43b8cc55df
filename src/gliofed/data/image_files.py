"""Image files by name, and reading them with the library of their format.

NIfTI, FreeSurfer (.mgz, .mgh) and NIfTI pairs (.hdr, .img) are read with nibabel, NRRD and
MetaImage (.nrrd, .nhdr, .mha, .mhd) with SimpleITK.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from gliofed.errors import DataError

_NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.I)
_ITK: Final = re.compile(r"\.(nrrd|nhdr|mha|mhd)$", re.I)
_OTHERS: Final = re.compile(r"\.(mgz|mgh|hdr|nrrd|nhdr|mha|mhd)$", re.I)


def is_nifti(path: Path) -> bool:
    """By its name alone."""
    return _NIFTI.search(path.name) is not None


def is_image(path: Path) -> bool:
    """Whether a file is an image in a format that can be read, by its name; the .img of a pair
    belongs to its .hdr."""
    return is_nifti(path) or _OTHERS.search(path.name) is not None


def image_stem(path: Path) -> str:
    """The name without the ending of its format."""
    return _OTHERS.sub("", _NIFTI.sub("", path.name))


def load_image(path: Path) -> Any:
    """An image as nibabel's, its voxels not yet read.

    Raises FileNotFoundError, OSError, ValueError, nibabel's ImageFileError; DataError for
    ANALYZE 7.5, which does not define left and right, and where SimpleITK is not installed.
    """
    import nibabel as nib

    if _ITK.search(path.name):
        return _load_with_itk(path)
    image = nib.load(path)
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        raise DataError(
            f"{path}: ANALYZE 7.5 does not define left and right; convert the series again from "
            "DICOM, for example with dcm2niix"
        )
    return image


def save_as_nifti(path: Path, target: Path) -> None:
    """Copy an image of another format to a NIfTI file. Raises as `load_image`."""
    import nibabel as nib

    image = load_image(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine), target)


def _load_with_itk(path: Path) -> Any:
    import nibabel as nib

    try:
        import SimpleITK as sitk  # noqa: N813  (its usual name)
    except ImportError:
        raise DataError(
            f"{path}: reading this format needs SimpleITK, which is not installed; install it "
            "with pip install 'gliofed[hospital]', or convert the file to NIfTI"
        ) from None
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError("expected one 3D volume of single values")
    to_lps = np.eye(4)
    to_lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    to_lps[:3, 3] = image.GetOrigin()
    affine = np.diag([-1.0, -1, 1, 1]) @ to_lps
    return nib.Nifti1Image(sitk.GetArrayFromImage(image).T, affine)
