"""Fuzzing of image intake with atheris (pip install atheris; not a dependency of gliofed).

    PYTHONPATH=src python fuzz/nifti_header.py -max_total_time=580

Any exception but BrokenFileError, which the readers turn into findings, ends the run with the bytes
that caused it. The first byte decides whether the rest is packed.
"""

from __future__ import annotations

import gzip
import struct
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gliofed"]):
    from gliofed.types import Sequence
    from gliofed.validation.findings import BrokenFileError
    from gliofed.validation.header_privacy import check_extensions, check_header_texts
    from gliofed.validation.nifti_geometry import read_affine
    from gliofed.validation.nifti_header import check_layout, read_header
    from gliofed.validation.reader_messages import ReadRequest
    from gliofed.validation.reader_process import read_case

FOLDER = Path(tempfile.mkdtemp(prefix="gliofed-fuzz-"))


def seed() -> bytes:
    """A sound header and 1000 voxels, so that mutation starts behind the first checks."""
    data = bytearray(352 + 1000)
    struct.pack_into("<i", data, 0, 348)
    struct.pack_into("<8h", data, 40, 3, 10, 10, 10, 1, 1, 1, 1)
    struct.pack_into("<2h", data, 70, 2, 8)
    struct.pack_into("<8f", data, 76, 1, 3, 3, 3, 1, 1, 1, 1)
    struct.pack_into("<3f", data, 108, 352, 1, 0)
    struct.pack_into("<2h", data, 252, 1, 1)
    struct.pack_into("<12f", data, 280, 3, 0, 0, 0, 0, 3, 0, 0, 0, 0, 3, 0)
    data[344:348] = b"n+1\0"
    data[352:] = bytes(i % 251 for i in range(1000))
    return bytes(data)


def one(data: bytes) -> None:
    try:
        header = read_header(data)
    except BrokenFileError:
        pass
    else:
        layout = check_layout(header, len(data), packed=False)
        check_header_texts(header)
        check_extensions(header, data)
        if not any(f.fatal for f in layout):
            read_affine(header)
    packed = bool(data[:1] and data[0] & 1)
    path = FOLDER / ("x.nii.gz" if packed else "x.nii")
    path.write_bytes(gzip.compress(data[1:], 1) if packed else data)
    read_case(ReadRequest({Sequence.FLAIR: path}, {"mask": path}, True), lambda where: None)


if __name__ == "__main__":
    start = FOLDER / "corpus"
    start.mkdir()
    (start / "plain").write_bytes(seed())
    (start / "packed").write_bytes(b"\1" + seed())
    atheris.Setup([*sys.argv, str(start)], one)
    atheris.Fuzz()
