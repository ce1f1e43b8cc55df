"""One series to one NIfTI volume, by dcm2niix (Li et al. 2016, J Neurosci Methods 264:47)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import dcm2niix
import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from gliofed.errors import DataError

SECONDS: Final = 600
_NAME: Final = "volume"


def version() -> str:
    """The converter and its version."""
    return f"dcm2niix {dcm2niix.__version__}"


def convert(files: Sequence[Path], work: Path) -> nib.Nifti1Image:
    """The one 3D volume in `files`, read from disk; its header has geometry only.

    work: an empty private folder, which the caller removes. The converter's output is not shown,
    since it may contain names. Rescaling as by RescaleSlope and RescaleIntercept. Raises DataError
    if the converter failed or made no volume or several.
    """
    work = work.resolve()  # the converter runs there, so that a relative path would be wrong
    source, target = work / "in", work / "out"
    source.mkdir()
    target.mkdir()
    for number, path in enumerate(files):
        _bring(path, source / f"{number:05d}.dcm")
    command = [
        dcm2niix.bin,
        "-b",
        "n",
        "-z",
        "n",
        "-f",
        _NAME,
        "-p",
        "n",
        "-x",
        "i",
        "-l",
        "o",
        "-i",
        "n",
        "-m",
        "y",
        "-g",
        "i",
        "-o",
        str(target),
        str(source),
    ]
    try:
        done = subprocess.run(  # noqa: S603  (the wheel's own binary)
            command,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            cwd=work,
            env={"PATH": os.defpath, "HOME": str(work)},
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"dcm2niix did not end in {SECONDS} s; export the series again") from None
    # Beside a volume of uneven steps it writes one resampled to even steps, "_Eq".
    made = [p for p in sorted(target.glob("*.nii*")) if "_Eq" not in p.name]
    if len(made) != 1:
        raise DataError(
            f"dcm2niix (status {done.returncode}) made {len(made)} volumes, expected one; export "
            "the series again, uncompressed"
        )
    return _bare(made[0])


def _bare(path: Path) -> nib.Nifti1Image:
    """Voxels and affine under a new header, without text or extension."""
    try:
        image = nib.load(path)
        raw: NDArray[np.int16] = np.asarray(image.dataobj.get_unscaled())
        slope, inter = image.dataobj.slope, image.dataobj.inter
        affine = np.asarray(image.affine)
    except (ImageFileError, OSError, EOFError, ValueError):
        raise DataError("dcm2niix wrote a file that cannot be read; see the disk") from None
    if raw.ndim != 3:
        raise DataError(f"dcm2niix made {raw.ndim} dimensions, expected one 3D volume")
    if (slope, inter) != (1, 0):
        return bare((raw * float(slope) + float(inter)).astype(np.float32), affine)
    return bare(raw, affine)


def bare(data: NDArray[Any], affine: NDArray[np.float64]) -> nib.Nifti1Image:
    """An image whose header has only voxel type and affine (to RAS mm)."""
    out = nib.Nifti1Image(data, affine)
    out.header.set_xyzt_units("mm")
    out.set_qform(affine, code=1)
    out.set_sform(affine, code=1)
    return out


def _bring(path: Path, to: Path) -> None:
    try:
        to.symlink_to(path.resolve())
    except OSError:  # a file system without links
        try:
            shutil.copyfile(path, to)
        except OSError as error:  # without the path, which may contain a name
            raise DataError(f"a file cannot be copied ({error.strerror}); check the disk") from None
