"""Reads and checks NIfTI-1 and NIfTI-2 headers from their bytes, before any voxel is read.

Fields and offsets: nifti1.h and nifti2.h of the NIfTI Data Format Working Group
(https://nifti.nimh.nih.gov). No library is used, since libraries repair faults while
reading: see ADR 14.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gliofed.dicom.signature import starts_as_dicom
from gliofed.validation.findings import BrokenFileError, FileFault

SIZES: Final[Mapping[int, int]] = {1: 348, 2: 540}
MAX_VOXEL_BYTES: Final = 384 * 2**20
"""Largest size of the voxels of one image, checked in the header before unpacking."""
MAX_OFFSET: Final = 16 * 2**20
"""Largest size of header and extensions."""
MAX_GZIP_RATIO: Final = 1032
"""Largest compression ratio of deflate (zlib technical details, zlib.net)."""

TYPES: Final[Mapping[int, str]] = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
"""NIfTI datatype to NumPy type. RGB, complex, 1-bit and 128-bit types are not images here."""

_MAGIC: Final = {b"n+1\0": 1, b"ni1\0": 1}
_MAGIC2: Final = {b"n+2\0\r\n\x1a\n": 2, b"ni2\0\r\n\x1a\n": 2}


@dataclass(frozen=True)
class NiftiHeader:
    """The fields that are used. order: "<" or ">". dim: dim[0] to dim[7]. units: of length.

    texts: name and bytes of every free-text field. pair: of a .hdr/.img pair.
    """

    version: int
    order: str
    pair: bool
    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    slope: float
    inter: float
    qform_code: int
    sform_code: int
    quatern: tuple[float, ...]
    qoffset: tuple[float, ...]
    srow: tuple[float, ...]
    units: int
    texts: tuple[tuple[str, bytes], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes, those of length 1 beyond the third left out."""
        lengths = list(self.dim[1 : 1 + max(0, min(self.dim[0], 7))])
        while len(lengths) > 3 and lengths[-1] == 1:
            lengths.pop()
        return tuple(lengths)

    @property
    def voxels(self) -> int:
        """Number of voxels of all volumes."""
        return math.prod(self.shape)

    @property
    def data_bytes(self) -> int:
        """Size of the voxels in bytes; 0 for an unknown type."""
        return self.voxels * int(TYPES.get(self.datatype, "u0")[1:])


def read_header(data: bytes) -> NiftiHeader:
    """The header at the start of `data` (540 bytes suffice).

    Raises BrokenFileError: too short, ANALYZE 7.5, or no NIfTI at all.
    """
    if len(data) < 4:
        raise BrokenFileError("NII-HEADER-CUT", f"{len(data)} bytes, a header has 348")
    sizes = {order: struct.unpack(order + "i", data[:4])[0] for order in "<>"}
    for order, size in sizes.items():
        if size in SIZES.values():
            if len(data) < size:
                raise BrokenFileError("NII-HEADER-CUT", f"{len(data)} bytes, the header has {size}")
            return _nifti1(data, order) if size == SIZES[1] else _nifti2(data, order)
    raise BrokenFileError("NII-NOT-NIFTI", _file_type(data, sizes["<"]))


def _nifti1(data: bytes, order: str) -> NiftiHeader:
    magic = data[344:348]
    if magic not in _MAGIC:
        if magic.strip(b"\0"):
            raise BrokenFileError("NII-NOT-NIFTI", f"magic {magic!r} is not that of NIfTI-1")
        raise BrokenFileError("NII-ANALYZE", "no magic: ANALYZE 7.5 does not define left and right")

    def get(form: str, at: int) -> tuple[float, ...]:
        return struct.unpack_from(order + form, data, at)

    datatype, bitpix = _integers(get("2h", 70))
    qform, sform = _integers(get("2h", 252))
    return NiftiHeader(
        version=1,
        order=order,
        pair=magic[:3] == b"ni1",
        dim=_integers(get("8h", 40)),
        datatype=datatype,
        bitpix=bitpix,
        pixdim=get("8f", 76),
        vox_offset=get("f", 108)[0],
        slope=get("f", 112)[0],
        inter=get("f", 116)[0],
        qform_code=qform,
        sform_code=sform,
        quatern=get("3f", 256),
        qoffset=get("3f", 268),
        srow=get("12f", 280),
        units=data[123] & 7,
        texts=_texts(
            data,
            (
                ("data_type", 4, 10),
                ("db_name", 14, 18),
                ("descrip", 148, 80),
                ("aux_file", 228, 24),
                ("intent_name", 328, 16),
            ),
        ),
    )


def _nifti2(data: bytes, order: str) -> NiftiHeader:
    magic = data[4:12]
    if magic not in _MAGIC2:
        raise BrokenFileError("NII-NOT-NIFTI", f"magic {magic!r} is not that of NIfTI-2")

    def get(form: str, at: int) -> tuple[float, ...]:
        return struct.unpack_from(order + form, data, at)

    datatype, bitpix = _integers(get("2h", 12))
    qform, sform = _integers(get("2i", 344))
    return NiftiHeader(
        version=2,
        order=order,
        pair=magic[:3] == b"ni2",
        dim=_integers(get("8q", 16)),
        datatype=datatype,
        bitpix=bitpix,
        pixdim=get("8d", 104),
        vox_offset=get("q", 168)[0],
        slope=get("d", 176)[0],
        inter=get("d", 184)[0],
        qform_code=qform,
        sform_code=sform,
        quatern=get("3d", 352),
        qoffset=get("3d", 376),
        srow=get("12d", 400),
        units=_integers(get("i", 500))[0] & 7,
        texts=_texts(
            data,
            (
                ("descrip", 240, 80),
                ("aux_file", 320, 24),
                ("intent_name", 508, 16),
                ("unused_str", 525, 15),
            ),
        ),
    )


def _integers(values: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _texts(data: bytes, fields: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, data[at : at + length]) for name, at, length in fields)


def _file_type(data: bytes, size: int) -> str:
    known = {
        b"PK": "a zip file",
        b"\x89PNG": "a PNG image",
        b"%PDF": "a PDF file",
        b"<": "HTML or XML text",
        b"NRRD": "an NRRD image",
        b"\x89HDF": "an HDF5 file",
        b"version https://git-lfs": "a Git LFS pointer",
    }
    if starts_as_dicom(data):
        return "a DICOM file"
    for start, name in known.items():
        if data.startswith(start):
            return name
    return f"sizeof_hdr is {size}, expected 348 or 540"


def check_layout(header: NiftiHeader, file_bytes: int, packed: bool) -> tuple[FileFault, ...]:
    """Faults of axes, voxel type and sizes, which decide whether voxels may be read.

    file_bytes: size of the file on disk. packed: whether it is compressed by gzip.
    """
    faults = []
    if header.pair:
        faults.append(
            FileFault("NII-TWO-FILES", "magic ni1 or ni2: the voxels are in a second file")
        )
    if header.datatype not in TYPES:
        faults.append(FileFault("NII-DATATYPE", f"datatype {header.datatype}"))
    elif header.bitpix != 8 * int(TYPES[header.datatype][1:]):
        faults.append(
            FileFault(
                "NII-BITPIX", f"bitpix {header.bitpix} with datatype {TYPES[header.datatype]}"
            )
        )
    if math.isinf(header.slope) or (
        header.slope != 0 and not math.isnan(header.slope) and not math.isfinite(header.inter)
    ):
        faults.append(FileFault("NII-SCALING", f"slope {header.slope}, intercept {header.inter}"))
    axes = _axes(header)
    faults += axes
    if not any(f.fatal for f in axes):
        faults += _sizes(header, file_bytes, packed)
    return tuple(faults)


def _axes(header: NiftiHeader) -> list[FileFault]:
    count, lengths = header.dim[0], header.dim[1:]
    if not 1 <= count <= 7:
        return [FileFault("NII-DIMS", f"{count} axes")]
    lengths = lengths[:count]
    text = "shape " + " x ".join(map(str, lengths))
    if min(lengths) < 0:
        return [FileFault("NII-DIMS", text)]
    if min(lengths) == 0:
        return [FileFault("NII-ZERO-SIZE", text)]
    if len(header.shape) < 3 or header.shape.count(1) >= 2:
        return [FileFault("NII-NOT-3D", text)]
    if len(header.shape) > 3:
        return [FileFault("NII-4D", text)]
    return [FileFault("NII-THIN", text)] if min(header.shape) < 8 else []


def _sizes(header: NiftiHeader, file_bytes: int, packed: bool) -> list[FileFault]:
    least = SIZES[header.version] + 4
    offset, need = header.vox_offset, header.data_bytes
    if not least <= offset <= MAX_OFFSET:
        return [FileFault("NII-OFFSET", f"vox_offset {offset:g}, expected {least} to {MAX_OFFSET}")]
    if need > MAX_VOXEL_BYTES:
        return [
            FileFault(
                "NII-TOO-LARGE",
                f"{_mib(need)} of voxels declared, the limit is {_mib(MAX_VOXEL_BYTES)}",
            )
        ]
    total = int(offset) + need
    if packed and total > MAX_GZIP_RATIO * file_bytes:
        return [
            FileFault(
                "NII-TRUNCATED",
                f"{total} bytes declared, more than {file_bytes} packed bytes can hold",
            )
        ]
    if not packed and total > file_bytes:
        return [FileFault("NII-TRUNCATED", f"{file_bytes} bytes, {total} declared")]
    if not packed and total < file_bytes:
        return [FileFault("NII-EXTRA-BYTES", f"{file_bytes} bytes, {total} declared")]
    return []


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
