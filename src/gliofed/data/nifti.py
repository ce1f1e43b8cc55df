"""Reads NIfTI files as finite 3D volumes with a valid affine, and writes them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from gliofed.data.image_files import load_image
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.types import Sequence
from gliofed.version import __version__

SCANNER: Final = 1
ALIGNED: Final = 2
"""Codes of NIfTI's sform and qform: scanner coordinates, and those of another scan."""
UNPACKING: Final[type[Exception]] = isal_zlib.error  # type: ignore[assignment]  # as its stub says
BUFFER_BYTES: Final = 2**20
"""Of an unpacked file; with smaller ones, calls take as long as unpacking."""
IMAGE_ENDINGS: Final = {
    Sequence.T1: "_space-gliofed_desc-preproc_T1w",
    Sequence.T1CE: "_ce-gadolinium_space-gliofed_desc-preproc_T1w",
    Sequence.T2: "_space-gliofed_desc-preproc_T2w",
    Sequence.FLAIR: "_space-gliofed_desc-preproc_FLAIR",
}
"""BIDS endings of a case's images in the network's space."""


@dataclass(frozen=True)
class Volume:
    """A 3D image. data: (X, Y, Z) float32; affine: voxel to RAS millimetres, (4, 4)."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]


def read_nifti(path: Path) -> Volume:
    """Read an image file, reoriented to the closest RAS axes without resampling.

    Raises DataError naming the file: absent or of another format, cut short, not 3D (a trailing
    axis of length 1 is dropped), an axis of length 0, an affine that is singular or not finite, or
    voxels that are NaN or infinite.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError

    try:
        with _opened(path) as stored:
            image = stored
            if image.ndim > 3 and set(image.shape[3:]) == {1}:
                image = image.slicer[(slice(None),) * 3 + (0,) * (image.ndim - 3)]
            _check_header(path, image.shape, image.affine)
            image = nib.as_closest_canonical(image)
            data = np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error, UNPACKING) as error:
        raise DataError(
            f"{path}: cannot be read as an image ({error}); copy the file again"
        ) from None
    if not np.isfinite(data).all():
        raise DataError(f"{path}: has NaN or infinite voxels; export the series again")
    return Volume(data, np.asarray(image.affine, dtype=np.float64))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """As `load_image`; a gzipped NIfTI file is unpacked by isal, in a third of the time."""
    import nibabel as nib

    image = load_image(path)
    if not (isinstance(image, nib.Nifti1Image) and path.name.lower().endswith(".gz")):
        yield image
        return
    unpacked = igzip.IGzipFile(path)  # type: ignore[no-untyped-call]  # its stub has no types
    with io.BufferedReader(unpacked, BUFFER_BYTES) as stream:
        yield type(image).from_stream(stream)


def read_grid(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape and affine (voxel to RAS mm) of a file, in the stored order of axes."""
    image = load_image(path)
    x, y, z = image.shape[:3]
    return (x, y, z), np.asarray(image.affine, dtype=np.float64)


def nifti_bytes(
    data: NDArray[Any], affine: NDArray[np.float64], code: int, compressed: bool = True
) -> bytes:
    """A file's bytes, gzip or plain; the same voxels always give the same bytes.

    affine: voxel to RAS mm. code: `SCANNER` or `ALIGNED`.
    """
    import nibabel as nib

    image = nib.Nifti1Image(data, affine)
    if data.dtype == np.uint8:
        image.header["cal_max"] = 1
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    if not np.allclose(image.get_qform(), affine, atol=1e-3):  # a quaternion cannot hold shear
        image.set_qform(affine, 0)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"gliofed {__version__}. {RESEARCH_USE_ONLY}".encode()[:79]
    raw: bytes = image.to_bytes()
    return gzip.compress(raw, 6, mtime=0) if compressed else raw


def _check_header(path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: expected one 3D volume, found shape {shape}")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise DataError(f"{path}: its affine is singular or not finite; set a valid sform or qform")
