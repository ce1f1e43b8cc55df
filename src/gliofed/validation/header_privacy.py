"""Finds names, dates and numbers of patients in the free text of a NIfTI header.

Converters may copy them there. The bytes after the end of a text are read too: programs that
shorten a text often leave the rest of the old one.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from gliofed.validation.findings import FileFault
from gliofed.validation.nifti_header import SIZES, NiftiHeader

_DICOM_EXTENSION: Final = 2
_PRINTED: Final = re.compile(rb"[\x20-\x7e\xa0-\xff]{3,}")

_PATIENT: Final = re.compile(
    r"\w\^\w|patient\W?s?\W?(name|id|birth)|birth\W?date|date\W?of\W?birth|\bdob\b|\bmrn\b", re.I
)
"""DICOM writes Family^Given."""
_MONTH: Final = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE: Final = re.compile(
    r"(?<!\d)(19|20)\d\d([-/.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)"
    r"|(?<!\d)(0?[1-9]|[12]\d|3[01])([-/.])(0?[1-9]|1[0-2]|[12]\d|3[01])\6(19|20)\d\d(?!\d)"
    rf"|(?<!\d)\d{{1,2}}[ -]({_MONTH})[a-z]*[ -](19|20)\d\d(?!\d)",
    re.I,
)
_NUMBER: Final = re.compile(r"(?<![\d.])\d{7,}(?![\d.])")
_NAME: Final = re.compile(
    r"\b[A-Z][a-z]{2,}[ ,_]+[A-Z][a-z]{2,}\b|\b[A-Z]{3,}, ?[A-Z][a-zA-Z]{2,}\b"
)
_PROGRAMS: Final = re.compile(
    r"fsl|spm|ants|afni|dcm2nii|nibabel|itk|slicer|freesurfer|mri_convert|brats|captk|siemens|"
    r"philips|medical|insight|matlab|python|tumou?r|mask|segment|image|brain|axial|sagittal|"
    r"coronal|flair|nifti|converted|created|version|dataset",
    re.I,
)
_RULES: Final = (
    ("NII-PATIENT", _PATIENT),
    ("NII-DATE", _DATE),
    ("NII-NUMBER", _NUMBER),
    ("NII-NAME", _NAME),
)


def check_header_texts(header: NiftiHeader) -> tuple[FileFault, ...]:
    """At most one fault of each kind and field."""
    return tuple(f for name, raw in header.texts for f in _text_faults(name, raw))


def contains_date(text: str) -> bool:
    """Whether `text` contains a full date."""
    return _DATE.search(text) is not None


def check_extensions(header: NiftiHeader, data: bytes) -> tuple[FileFault, ...]:
    """Faults of the header's extensions.

    data: the file's unpacked bytes from its beginning to where the voxels start.
    """
    at = SIZES[header.version]
    if len(data) < at + 4 or data[at] == 0:
        return ()
    faults: list[FileFault] = []
    at += 4
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(header.order + "2i", data, at)
        if size < 16 or size % 16 or at + size > len(data):
            faults.append(FileFault("NII-EXTENSION", f"at byte {at}: length {size}"))
            break
        if kind == _DICOM_EXTENSION:
            faults.append(FileFault("NII-DICOM", f"{size} bytes at byte {at}"))
        faults += _text_faults(f"extension at byte {at}", data[at + 8 : at + size])
        at += size
    return tuple(dict.fromkeys(faults))


def _text_faults(field: str, raw: bytes) -> list[FileFault]:
    """Faults of one text. They describe its form and do not quote it, since it may be private."""
    text = "\n".join(m.decode("latin-1") for m in _PRINTED.findall(raw))
    faults = []
    for code, pattern in _RULES:
        match = pattern.search(text)
        if match is None or (code == "NII-NAME" and _PROGRAMS.search(text)):
            continue
        faults.append(FileFault(code, f"in {field}, {len(match[0])} characters: {_form(match[0])}"))
        if code == "NII-PATIENT":
            break
    return faults


def _form(text: str) -> str:
    """The form of a text: letters as x, digits as 9.

    >>> _form("DOE^JOHN 1970")
    'xxx^xxxx 9999'
    """
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text))
