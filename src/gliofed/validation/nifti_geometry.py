"""Checks affine, voxel size and position of an image from its header."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.validation.findings import FileFault
from gliofed.validation.nifti_header import NiftiHeader

Affine = NDArray[np.float64]

SPACING_MM: Final = (0.1, 20.0)
"""Voxel sizes that occur in brain MRI."""
ANISOTROPY: Final = 12.0
FIELD_OF_VIEW_MM: Final = (20.0, 600.0)
"""Extent of an image: at least that of a crop around a tumour, at most that of a head coil."""
MAX_ORIGIN_MM: Final = 1000.0
CODES: Final = range(6)
"""Valid sform and qform codes (nifti1.h, nifti2.h); 0 is none."""
_ROUNDING: Final = {1: 3 * 2.0**-23, 2: 3 * 2.0**-52}
"""By version (of 32 and 64 bits): how far beyond 1 a quaternion's squares may add up. nibabel reads
the voxels afterwards, and refuses more."""
_UNITS: Final = {1: "metres", 3: "micrometres"}


@np.errstate(all="ignore")
def read_affine(header: NiftiHeader) -> tuple[Affine | None, tuple[FileFault, ...]]:
    """The affine (voxel to RAS mm; the sform before the qform), and its faults.

    The affine is None where it is missing or not valid. The shape must have passed `check_layout`.
    """
    faults = _units(header) + _pixdim(header)
    if not (header.sform_code in CODES and header.qform_code in CODES):
        text = f"sform_code {header.sform_code}, qform_code {header.qform_code}"
        return None, (*faults, FileFault("NII-FORM-CODE", text))
    if header.sform_code == header.qform_code == 0:
        return None, (*faults, FileFault("NII-NO-AFFINE", "sform_code and qform_code are 0"))
    sform = _sform(header) if header.sform_code > 0 else None
    qform = _qform(header) if header.qform_code > 0 else None
    if qform is None and header.qform_code > 0:
        faults.append(FileFault("NII-QFORM", f"b, c, d = {_list(header.quatern)}"))
    affine = sform if sform is not None else qform
    if affine is None:
        return None, tuple(faults)
    if not np.isfinite(affine).all():
        return None, (*faults, FileFault("NII-AFFINE-NAN", _list(affine[:3].ravel())))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() == 0 or not _regular(affine, spacing):
        return None, (*faults, FileFault("NII-AFFINE-SINGULAR", _list(affine[:3].ravel())))
    faults += _size(affine, spacing, header)
    if np.array_equal(affine, np.eye(4)):
        faults.append(FileFault("NII-IDENTITY", "voxels of 1 mm, no rotation, origin in voxel 0"))
    if sform is not None and qform is not None and np.isfinite(qform).all():
        faults += _compare_forms(sform, qform, header.shape)
    return affine, tuple(faults)


def _regular(affine: Affine, spacing: Affine) -> bool:
    return bool(abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-3)


def _units(header: NiftiHeader) -> list[FileFault]:
    name = _UNITS.get(header.units)
    return [FileFault("NII-UNITS", f"xyzt_units is {name}")] if name else []


def _pixdim(header: NiftiHeader) -> list[FileFault]:
    sizes = header.pixdim[1:4]
    text = f"pixdim {_list(sizes)}"
    if not all(map(math.isfinite, sizes)):
        return [FileFault("NII-SPACING-ABSURD", text)]
    if min(sizes) < 0:
        return [FileFault("NII-SPACING-NEGATIVE", text)]
    return [FileFault("NII-SPACING-ZERO", text)] if min(sizes) == 0 else []


def _sform(header: NiftiHeader) -> Affine:
    return np.array([*header.srow, 0, 0, 0, 1], np.float64).reshape(4, 4)


def _qform(header: NiftiHeader) -> Affine | None:
    """The affine of quaternion, offset and pixdim (nifti1.h, method 2); None for no rotation."""
    b, c, d = header.quatern
    square = b * b + c * c + d * d
    if not square - 1 < _ROUNDING[header.version]:
        return None
    a = math.sqrt(max(0.0, 1 - square))
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = np.array(header.pixdim[1:4])
    sizes[2] *= -1 if header.pixdim[0] == -1 else 1
    affine = np.eye(4)
    affine[:3, :3] = turn * sizes
    affine[:3, 3] = header.qoffset
    return affine


def _size(affine: Affine, spacing: Affine, header: NiftiHeader) -> list[FileFault]:
    faults = []
    shape = np.array(header.shape[:3])
    text = f"voxel {' x '.join(f'{s:.4g}' for s in spacing)} mm"
    if spacing.min() < SPACING_MM[0] or spacing.max() > SPACING_MM[1]:
        faults.append(FileFault("NII-SPACING-ABSURD", text))
    elif spacing.max() > ANISOTROPY * spacing.min():
        faults.append(FileFault("NII-ANISOTROPY", text))
    field = (shape * spacing)[shape > 1]
    if not faults and not (
        FIELD_OF_VIEW_MM[0] <= field.min() and field.max() <= FIELD_OF_VIEW_MM[1]
    ):
        text = " x ".join(f"{f:.4g}" for f in shape * spacing)
        faults.append(FileFault("NII-FIELD-OF-VIEW", f"{text} mm"))
    cosines = affine[:3, :3] / spacing
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > 0.02:
        faults.append(FileFault("NII-SHEAR", _list(affine[:3, :3].ravel())))
    sizes = np.abs(header.pixdim[1:4])
    if (
        np.isfinite(sizes).all()
        and sizes.min() > 0
        and (np.abs(spacing - sizes) > 0.01 * sizes).any()
    ):
        faults.append(
            FileFault("NII-SPACING-DIFFERS", f"pixdim {_list(sizes)}, affine {_list(spacing)}")
        )
    middle = affine @ [*(shape - 1) / 2, 1]
    distance = float(np.linalg.norm(middle[:3]))
    if distance > MAX_ORIGIN_MM:
        faults.append(FileFault("NII-ORIGIN", f"its middle is {distance:.4g} mm from the origin"))
    return faults


def _compare_forms(sform: Affine, qform: Affine, shape: Sequence[int]) -> list[FileFault]:
    """A fault where sform and qform place a corner more than half a voxel apart."""
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        return [FileFault("NII-FORMS-MIRROR", "their determinants have opposite signs")]
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape[:3]))).reshape(3, -1)
    points = np.vstack([corners, np.ones(8)])
    distance = float(np.linalg.norm(((sform - qform) @ points)[:3], axis=0).max())
    least = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    if distance > 0.5 * least:
        return [FileFault("NII-FORMS-DIFFER", f"by up to {distance:.3g} mm")]
    return []


def _list(values: Sequence[float] | Affine) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
