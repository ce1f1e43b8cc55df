"""A DICOM file's header as frozen values, one a frame; pixels are neither read nor decoded.

Attribute names and meanings: DICOM PS3.3, C.7 (patient, study, series, image), C.8.3.1 (MR image).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gliofed.dicom.contrast_words import agent_in_text
from gliofed.dicom.enhanced import as_classic
from gliofed.dicom.pixel_extent import PixelExtent
from gliofed.errors import DataError

MR: Final = "1.2.840.10008.5.1.4.1.1.4"
"""MR Image Storage: classic, one slice a file."""
_AGE: Final = re.compile(r"(\d{3})([DWMY])")
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)")
_TIME: Final = re.compile(r"(\d\d)(\d\d)(\d\d(?:\.\d+)?)?")
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_DAYS: Final = {"D": 1.0, "W": 7.0, "M": 365.25 / 12, "Y": 365.25}
_DICOMDIR: Final = "1.2.840.10008.1.3.10"
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_NAMING: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "OtherPatientIDs",
    "OtherPatientNames",
    "AccessionNumber",
    "ReferringPhysicianName",
    "OperatorsName",
    "PerformingPhysicianName",
    "StudyID",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
    "DeviceSerialNumber",
    "StudyDate",
)
_CONTRAST: Final = (
    "ContrastBolusAgentSequence",
    "ContrastBolusRoute",
    "ContrastBolusVolume",
    "ContrastBolusTotalDose",
    "ContrastBolusIngredient",
    "ContrastBolusStartTime",
)


@dataclass(frozen=True)
class DicomPatient:
    """The patient; must not leave the site. words: texts that may name the patient or others."""

    id: str
    issuer: str
    name: str
    birth: str
    sex: str
    age: float | None
    words: tuple[str, ...]


@dataclass(frozen=True)
class PulseTiming:
    """The MR sequence. Times in ms, flip in degrees; None where the header lacks the value.

    sequence, variant, options: (0018,0020), (0018,0021), (0018,0022). agent: whether
    (0018,0010) or related attributes name a contrast agent; False where it states that none was
    given, None where it is empty. injected: seconds after midnight of its start.
    dimension: "2D", "3D" or "".
    """

    sequence: tuple[str, ...]
    variant: tuple[str, ...]
    options: tuple[str, ...]
    echo: float | None
    repetition: float | None
    inversion: float | None
    flip: float | None
    dimension: str
    agent: bool | None
    injected: float | None
    b_value: float | None
    angio: bool

    @property
    def three_d(self) -> bool:
        """Whether it was encoded in three dimensions."""
        return self.dimension == "3D"


@dataclass(frozen=True)
class ImagePlane:
    """Position and orientation in LPS millimetres (PS3.3 C.7.6.2).

    position: of the first voxel's centre. orientation: row then column direction. spacing:
    between rows, then between columns. frame: FrameOfReferenceUID.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int
    frame: str


@dataclass(frozen=True)
class ScannerModel:
    """The scanner. strength: tesla; thickness, step: millimetres."""

    manufacturer: str
    model: str
    strength: float | None
    thickness: float | None
    step: float | None


@dataclass(frozen=True)
class DicomHeader:
    """One slice: a classic instance, or a frame of an enhanced multi-frame one.

    date, time: of the study; acquired: seconds after midnight; frames: in the file, 1 unless
    multi-frame; frame: which of them, from 1, and 0 for the instance as a whole; pixels: whether
    there are any; cut: whether the file ends inside them; rescale: slope and intercept; bare:
    whether the file has no preamble or does not state its transfer syntax.
    """

    path: Path
    modality: str
    kind: str
    syntax: str
    study: str
    series: str
    instance: str
    number: int | None
    description: str
    protocol: str
    image_type: tuple[str, ...]
    burned_in: bool
    date: str
    time: str
    acquired: float | None
    frames: int
    frame: int
    pixels: bool
    cut: bool
    bare: bool
    rescale: tuple[float, float]
    patient: DicomPatient
    timing: PulseTiming
    plane: ImagePlane | None
    scanner: ScannerModel


def is_uid(text: str) -> bool:
    """Digits and dots, at most 64 (PS3.5 section 9)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_headers(path: Path) -> tuple[DicomHeader, ...]:
    """The header of each frame of an enhanced MR image, else the one of the file. It begins as
    `gliofed.dicom.signature.is_dicom` tells.

    Empty for a DICOMDIR, which is not an instance. An enhanced image that does not
    describe its frames has one header, of frame 0. Raises DataError without the file's name (it
    may hold the patient's): a header that cannot be read, or is cut.
    """
    try:
        with path.open("rb") as file, quiet():
            pixels = PixelExtent(file)
            data = read_partial(file, stop_when=pixels.met, force=True)
            if str(getattr(data.file_meta, "MediaStorageSOPClassUID", "")) == _DICOMDIR:
                return ()
            whole = _header(path, data, pixels)
            return tuple(_frame(whole, n, f) for n, f in enumerate(as_classic(data), start=1)) or (
                whole,
            )
    except (Exception, RecursionError) as error:  # pydicom may raise any exception on foreign bytes
        kind = type(error).__name__
        raise DataError(
            f"its header cannot be read as DICOM ({kind}), it may be truncated; export it again"
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silences pydicom's warnings, which quote malformed values that may be names."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _header(path: Path, data: FileDataset, pixels: PixelExtent) -> DicomHeader:
    stated = str(getattr(data.file_meta, "TransferSyntaxUID", ""))
    syntax = stated or _syntax_found(data, pixels)
    frames = int(_number(data, "NumberOfFrames") or 1)
    needed = frames
    for name in ("Rows", "Columns", "BitsAllocated"):
        needed *= int(_number(data, name) or 0)
    return DicomHeader(
        path=path,
        modality=_text(data, "Modality"),
        kind=_text(data, "SOPClassUID"),
        syntax=syntax,
        study=_text(data, "StudyInstanceUID"),
        series=_text(data, "SeriesInstanceUID"),
        instance=_text(data, "SOPInstanceUID"),
        number=_whole(_number(data, "SeriesNumber")),
        description=_text(data, "SeriesDescription"),
        protocol=_text(data, "ProtocolName"),
        image_type=_texts(data, "ImageType"),
        burned_in=_text(data, "BurnedInAnnotation").upper() == "YES",
        date=_text(data, "StudyDate"),
        time=_text(data, "StudyTime"),
        acquired=_clock(_text(data, "AcquisitionTime") or _text(data, "AcquisitionDateTime")[8:]),
        frames=frames,
        frame=0,
        pixels=pixels.there or syntax == _DEFLATED,
        cut=pixels.cut(needed // 8),
        bare=data.preamble is None or not stated,
        rescale=_rescale(data),
        patient=_patient(data),
        timing=_timing(data),
        plane=plane_of(data),
        scanner=_scanner(data),
    )


def _syntax_found(data: FileDataset, pixels: PixelExtent) -> str:
    """Of a file that does not state it; empty for compressed pixels, which do not show theirs."""
    implicit, little = data.original_encoding
    if pixels.compressed or not little:
        return ""
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _frame(whole: DicomHeader, number: int, data: Dataset) -> DicomHeader:
    """data: of one frame, under classic names."""
    return replace(
        whole,
        frame=number,
        image_type=_texts(data, "ImageType"),
        rescale=_rescale(data),
        timing=_timing(data),
        plane=plane_of(data),
        scanner=_scanner(data),
    )


def _rescale(data: Dataset) -> tuple[float, float]:
    slope, intercept = _number(data, "RescaleSlope"), _number(data, "RescaleIntercept")
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _scanner(data: Dataset) -> ScannerModel:
    return ScannerModel(
        manufacturer=_text(data, "Manufacturer"),
        model=_text(data, "ManufacturerModelName"),
        strength=_number(data, "MagneticFieldStrength"),
        thickness=_number(data, "SliceThickness"),
        step=_number(data, "SpacingBetweenSlices"),
    )


def _patient(data: Dataset) -> DicomPatient:
    words = dict.fromkeys(w for n in _NAMING for w in re.split(r"[\^=\s,;]+", _text(data, n)) if w)
    return DicomPatient(
        id=_text(data, "PatientID"),
        issuer=_text(data, "IssuerOfPatientID"),
        name=_text(data, "PatientName"),
        birth=_text(data, "PatientBirthDate"),
        sex=_text(data, "PatientSex").upper(),
        age=_age(data),
        words=tuple(w for w in words if len(w) >= 2),
    )


def _age(data: Dataset) -> float | None:
    """Years at the scan, by PatientAge, else by the two dates."""
    stated = _AGE.fullmatch(_text(data, "PatientAge").upper())
    if stated:
        return int(stated[1]) * _DAYS[stated[2]] / _DAYS["Y"]
    birth, scan = (_DATE.match(_text(data, n)) for n in ("PatientBirthDate", "StudyDate"))
    if birth is None or scan is None:
        return None
    b, s = ([int(g) for g in m.groups()] for m in (birth, scan))
    return s[0] - b[0] - ((s[1], s[2]) < (b[1], b[2]))


def _timing(data: Dataset) -> PulseTiming:
    return PulseTiming(
        sequence=_texts(data, "ScanningSequence"),
        variant=_texts(data, "SequenceVariant"),
        options=_texts(data, "ScanOptions"),
        echo=_number(data, "EchoTime"),
        repetition=_number(data, "RepetitionTime"),
        inversion=_number(data, "InversionTime"),
        flip=_number(data, "FlipAngle"),
        dimension=_text(data, "MRAcquisitionType").upper(),
        agent=_agent(data),
        injected=_clock(_text(data, "ContrastBolusStartTime")),
        b_value=_number(data, "DiffusionBValue"),
        angio=_text(data, "AngioFlag").upper() == "Y",
    )


def _agent(data: Dataset) -> bool | None:
    named = agent_in_text(_text(data, "ContrastBolusAgent"))
    if named is None and any(_text(data, n) not in ("", "0", "0.0", "[]") for n in _CONTRAST):
        return True
    return named


def plane_of(data: Dataset) -> ImagePlane | None:
    """Of a classic image or a frame under classic names; None where a part of it is missing."""
    position = _numbers(data, "ImagePositionPatient", 3)
    orientation = _numbers(data, "ImageOrientationPatient", 6)
    spacing = _numbers(data, "PixelSpacing", 2)
    rows, columns = _number(data, "Rows"), _number(data, "Columns")
    if not (position and orientation and spacing and rows and columns):
        return None
    frame = _text(data, "FrameOfReferenceUID")
    return ImagePlane(position, orientation, spacing, int(rows), int(columns), frame)


def _value(data: Dataset, name: str) -> Any:
    try:
        return data.get(name)
    except Exception:  # a value of the wrong form counts as absent
        return None


def _texts(data: Dataset, name: str) -> tuple[str, ...]:
    value = _value(data, name)
    if value is None:
        return ()
    values = value if isinstance(value, list) or type(value).__name__ == "MultiValue" else [value]
    return tuple(str(v).strip().strip("\0") for v in values)


def _text(data: Dataset, name: str) -> str:
    return "\\".join(_texts(data, name))


def _number(data: Dataset, name: str) -> float | None:
    numbers = _numbers(data, name, 1)
    return numbers[0] if numbers else None


def _numbers(data: Dataset, name: str, count: int) -> tuple[float, ...]:
    """Exactly `count` finite numbers, else none."""
    try:
        numbers = tuple(float(t) for t in _texts(data, name))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else ()


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _clock(text: str) -> float | None:
    match = _TIME.match(text)
    if match is None:
        return None
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3] or 0)
