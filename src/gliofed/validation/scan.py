"""Reads one image file into statistics, a digest and a reduced copy.

The file is read in slabs, so that memory use does not depend on its size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.image_files import is_nifti, save_as_nifti
from gliofed.data.nifti import SCANNER
from gliofed.validation.byte_stream import ByteStream
from gliofed.validation.findings import BrokenFileError, FileFault
from gliofed.validation.header_privacy import check_extensions, check_header_texts
from gliofed.validation.nifti_geometry import Affine, read_affine
from gliofed.validation.nifti_header import TYPES, NiftiHeader, check_layout, read_header

MAX_SIDE: Final = 160
"""Longest axis of the reduced copy, which keeps every n-th voxel."""
MAX_VALUES: Final = 64
"""Distinct values are counted up to this number."""
_SLAB: Final = 2**22
_SOME: Final = 4096


@dataclass(frozen=True)
class CheckedScan:
    """An image with all voxels read.

    small: float32 (x, y, z), every `step`-th voxel, NaN and infinity as 0; affine: of `small`,
    voxel to RAS mm, or None. shape: of the whole image. digest: of shape, type and voxel bytes.
    frame: of the affine, NIfTI's code of the coordinates (1: scanner, 2: another scan, 3 to 5:
    templates), 0 without one. low, high: over the finite voxels. positive: voxels above 0.
    fractions: voxels that are no whole number. values: the distinct finite values, or None for more
    than `MAX_VALUES`.
    """

    path: Path
    shape: tuple[int, int, int]
    small: NDArray[np.float32]
    step: tuple[int, int, int]
    affine: Affine | None
    frame: int
    digest: str
    low: float
    high: float
    nan: int
    infinite: int
    positive: int
    fractions: int
    values: tuple[float, ...] | None

    @property
    def flat(self) -> bool:
        """Whether all finite voxels have one value, or none is finite."""
        return not self.low < self.high


@np.errstate(all="ignore")
def read_scan(path: Path) -> tuple[CheckedScan | None, tuple[FileFault, ...]]:
    """The scan and every fault of its file; the scan is None where voxels cannot be read."""
    if not is_nifti(path):
        return _read_other_format(path)
    faults: list[FileFault] = []
    try:
        with ByteStream(path) as source:
            data = source.read(544)
            header = read_header(data)
            faults += [
                *check_layout(header, source.bytes, source.packed),
                *check_header_texts(header),
            ]
            if any(f.fatal for f in faults if f.code not in ("NII-PATIENT",)):
                return None, tuple(faults)
            affine, wrong = read_affine(header)
            faults += wrong
            start = int(header.vox_offset)
            data += source.read(max(0, start - len(data)))
            faults += check_extensions(header, data[:start])
            scan = _voxels(path, header, affine, source, data[start:])
            faults += source.finish()
    except BrokenFileError as error:
        return None, (*faults, error.fault)
    return scan, tuple(faults)


def _read_other_format(path: Path) -> tuple[CheckedScan | None, tuple[FileFault, ...]]:
    """As `read_scan`, of a copy as NIfTI that the format's library makes."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.nii"
        try:
            save_as_nifti(path, copy)
        except Exception as error:  # of three libraries, on a damaged file
            return None, (FileFault("FILE-UNREADABLE", str(error)),)
        scan, faults = read_scan(copy)
    return None if scan is None else replace(scan, path=path, frame=SCANNER), faults


def _voxels(
    path: Path, header: NiftiHeader, affine: Affine | None, source: ByteStream, already: bytes
) -> CheckedScan:
    x, y, z = header.shape[:3]
    kind = np.dtype(TYPES[header.datatype]).newbyteorder("<" if header.order == "<" else ">")
    step = (-(-x // MAX_SIDE), -(-y // MAX_SIDE), -(-z // MAX_SIDE))
    small = np.zeros([-(-n // s) for n, s in zip((x, y, z), step, strict=True)], np.float32)
    digest = hashlib.sha256(f"{(x, y, z)} {TYPES[header.datatype]}".encode())
    statistics = _VoxelStatistics()
    each = max(1, _SLAB // (x * y * kind.itemsize))
    for start in range(0, z, each):
        count = min(each, z - start)
        need = count * x * y * kind.itemsize
        raw = already[:need] + source.read(max(0, need - len(already)))
        already = already[need:]
        if len(raw) < need:
            raise BrokenFileError("NII-TRUNCATED", f"the voxels stop in slice {start + 1} of {z}")
        digest.update(raw)
        slab = np.frombuffer(raw, kind).reshape((x, y, count), order="F")
        slab = _scaled(slab, header.slope, header.inter)
        statistics.add(slab)
        first = -(-start // step[2])
        part = slab[:: step[0], :: step[1], first * step[2] - start :: step[2]]
        small[:, :, first : first + part.shape[2]] = part
    return CheckedScan(
        path=path,
        shape=(x, y, z),
        small=np.nan_to_num(small, copy=False, posinf=0, neginf=0),
        step=step,
        affine=None if affine is None else affine @ np.diag([*step, 1.0]),
        frame=0 if affine is None else header.sform_code or header.qform_code,
        digest=digest.hexdigest(),
        low=statistics.low,
        high=statistics.high,
        nan=statistics.nan,
        infinite=statistics.infinite,
        positive=statistics.positive,
        fractions=statistics.fractions,
        values=None if statistics.values is None else tuple(sorted(statistics.values)),
    )


def _scaled(slab: NDArray[np.generic], slope: float, inter: float) -> NDArray[np.generic]:
    """Apply slope and intercept; a slope of 0 (nifti1.h) or NaN means none."""
    if slope == 0 or np.isnan(slope) or (slope == 1 and inter == 0):
        return slab
    scaled: NDArray[np.generic] = slab.astype(np.float64) * slope + inter
    return scaled


class _VoxelStatistics:
    """Statistics that are added up over slabs."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.nan = self.infinite = self.positive = self.fractions = 0
        self.values: set[float] | None = set()

    def add(self, slab: NDArray[np.generic]) -> None:
        """Count one slab."""
        flat = slab.ravel(order="K")
        if not flat.size:
            return
        low, high = flat.min(), flat.max()
        if low == high and np.isfinite(low):
            self._add_even(float(low), flat.size)
            return
        if flat.dtype.kind == "f":
            if not (np.isfinite(low) and np.isfinite(high)):
                finite = np.isfinite(flat)
                self.nan += int(np.isnan(flat).sum())
                self.infinite += int(np.isinf(flat).sum())
                flat = flat[finite]
                if not flat.size:
                    return
                low, high = flat.min(), flat.max()
            self.fractions += int(np.count_nonzero(flat != np.rint(flat)))
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        self.positive += int(np.count_nonzero(np.greater(flat, 0)))
        for part in (flat[:: 1 + flat.size // _SOME], flat):  # a part has enough values as a rule
            if self.values is not None:
                self._add_values(np.unique(part).tolist())

    def _add_even(self, value: float, count: int) -> None:
        """As `add`, for a slab with a single value, faster."""
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.positive += count * (value > 0)
        self.fractions += count * (value != round(value))
        self._add_values((value,))

    def _add_values(self, values: Iterable[float]) -> None:
        if self.values is not None:
            self.values.update(values)
            if len(self.values) > MAX_VALUES:
                self.values = None
