"""Common parts of DICOM files made from a source series: patient, study, text and bytes.

An archive sorts instances by their headers, and two spellings of one patient become two patients.
So patient and study are copied from the source, byte by byte where possible.
"""

from __future__ import annotations

import copy
import io
import unicodedata
from collections.abc import Iterable
from typing import Any, Final

import highdicom as hd
import pydicom
from pydicom.charset import python_encoding
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from gliofed.dicom.source_series import Header, SourceSeries
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.version import __version__

UNICODE: Final = "ISO_IR 192"
REQUIRED: Final = (  # of the patient and study, empty where the source has none (type 2)
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
)
_SAME: Final = ("StudyInstanceUID", "PatientID", "PatientName")
_CONTROLS: Final = frozenset("\t\n\f\r")
"""Control characters that DICOM allows in unlimited text (PS3.5, 6.1.3)."""


def source_header(series: SourceSeries) -> Header:
    """The first image of a series, with the required attributes of patient and study filled in."""
    source = copy.copy(series.images[0])
    for name in REQUIRED:
        if name not in source:
            setattr(source, name, None)
    if source.PatientSex not in ("F", "M", "O"):
        del source.PatientSex  # the element is the series' own
        source.PatientSex = ""  # DICOM allows no other value; empty if unknown
    return source


def derived_series(source: Header, number_offset: int, description: str) -> dict[str, Any]:
    """Attributes of a derived series and its equipment, as arguments for highdicom.

    number_offset: added to the source's series number; the same for one kind of file.
    """
    number = int(source.get("SeriesNumber") or 0)
    return {
        "series_instance_uid": hd.UID(),
        "series_number": number_offset + (number if 0 < number < 2**30 else 0),
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": "gliofed",
        "manufacturer_model_name": "gliofed",
        "software_versions": __version__,
        "device_serial_number": "none: software",
        "series_description": f"{description}. {RESEARCH_USE_ONLY}",
        "specific_character_set": UNICODE,
    }


def finalize(dataset: Header, source: Header, texts: Iterable[str] = ()) -> None:
    """Add dates of the series, and the source's character set where it can encode `texts`.

    Optional patient values that are not valid DICOM, such as an age of "42", are left out.
    """
    for element in dataset.group_dataset(0x0010):
        if element.keyword not in REQUIRED and isinstance(element.value, str):
            try:
                validate_value(element.VR, element.value, RAISE)
            except ValueError:
                del dataset[element.tag]
    if all(_encodable(text, source) for text in texts):
        del dataset.SpecificCharacterSet
        if source.get("SpecificCharacterSet"):
            dataset.SpecificCharacterSet = source.SpecificCharacterSet
    dataset.SeriesDate = dataset.ContentDate
    dataset.SeriesTime = dataset.ContentTime


def validated_text(text: str, what: str) -> str:
    """A text for DICOM, without trailing spaces, which DICOM removes.

    Raises DataError for an empty text, or a character that DICOM text cannot hold.
    """
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cs") and letter not in _CONTROLS:
            raise DataError(f"{what}: contains {letter!r}, which DICOM text cannot hold; remove it")
    if not text.strip():
        raise DataError(f"{what}: is empty; give a text, or omit it")
    return text.rstrip()


def encode(dataset: pydicom.Dataset) -> bytes:
    """The file's bytes."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def identity_differences(dataset: Header, source: Header) -> list[str]:
    """Differences of patient and study between a file and its source, as texts."""
    return [
        f"{name} is not that of the source"
        for name in _SAME
        if (dataset.get(name) or "") != (source.get(name) or "")
    ]


def _encodable(text: str, source: Header) -> bool:
    """Whether the source's character set can encode the text.

    False for several character sets, and for those that Python decodes differently.
    """
    name = source.get("SpecificCharacterSet")
    if text.isascii() or not isinstance(name, str) or name not in python_encoding:
        return text.isascii()
    try:
        text.encode(python_encoding[name])
    except UnicodeEncodeError:
        return False
    return name not in ("", "ISO_IR 6", "ISO_IR 13")
