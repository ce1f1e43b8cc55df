"""MR series in DICOM, as two vendors write them, from arrays; with whatever fault a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
SHAPE = (20, 16, 12)
"""Columns, rows, slices."""


def uid(*parts: object) -> str:
    """The same for the same words."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"1.2.826.0.1.3680043.8.498.{int(digest[:28], 16)}"


@dataclass(frozen=True)
class Style:
    """What a vendor writes for one sequence."""

    description: str
    sequence: str
    variant: str
    echo: float
    repetition: float
    inversion: float | None
    flip: float
    three_d: bool
    agent: str = ""
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND", "NORM")


SIEMENS: Mapping[str, Style] = {
    "T1": Style("t1_mprage_sag_p2_iso", "GR\\IR", "SK\\SP\\MP", 2.98, 2300, 900, 9, True),
    "T1CE": Style(
        "t1_mprage_sag_p2_iso_KM", "GR\\IR", "SK\\SP\\MP", 2.98, 2300, 900, 9, True, "Gadovist"
    ),
    "T2": Style("t2_tse_tra_512", "SE", "SK\\SP\\OSP", 93, 5530, None, 150, False),
    "FLAIR": Style(
        "t2_tirm_tra_dark-fluid", "SE\\IR", "SK\\SP\\MP\\OSP", 81, 9000, 2500, 150, False
    ),
}
GE: Mapping[str, Style] = {
    "T1": Style("Ax T1 FLAIR", "SE\\IR", "SK", 24.4, 2600, 860, 111, False, "", ("ORIGINAL", "PRIMARY", "OTHER")),
    "T1CE": Style("Ax 3D BRAVO +C", "GR", "SS\\SP\\SK", 3.2, 8.2, 450, 12, True, "", ("ORIGINAL", "PRIMARY", "OTHER")),
    "T2": Style("Ax T2 PROPELLER", "SE", "SK", 105, 5200, None, 142, False, "", ("ORIGINAL", "PRIMARY", "OTHER")),
    "FLAIR": Style("Sag CUBE T2 FLAIR", "SE\\IR", "SK", 117, 6300, 1766, 90, True, "", ("ORIGINAL", "PRIMARY", "OTHER")),
}  # fmt: skip
VENDORS = {"SIEMENS": SIEMENS, "GE MEDICAL SYSTEMS": GE}
_BY_FRAME = frozenset({
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "SliceLocation", "RescaleSlope", "RescaleIntercept", "PixelData",
    "EchoTime", "EchoNumbers", "RepetitionTime", "InversionTime", "FlipAngle", "ScanningSequence",
    "SequenceVariant", "ContrastBolusAgent", "AcquisitionTime", "AcquisitionDate",
})  # fmt: skip
"""What an enhanced image has in functional groups, by another name or not at all."""


@dataclass(frozen=True)
class Made:
    """A series on disk. voxels: (columns, rows, slices), rescaled; affine: to RAS mm."""

    files: tuple[Path, ...]
    voxels: np.ndarray
    affine: np.ndarray


@dataclass(frozen=True)
class Who:
    """A patient and one of their studies."""

    id: str = "4711-0815"
    name: str = "Rotkehl^Wilhelmine"
    birth: str = "19610214"
    age: str = "058Y"
    sex: str = "F"
    date: str = "20190730"
    time: str = "101500"
    extra: Mapping[str, str] = field(default_factory=dict)


def turned(degrees: float = 17.0) -> np.ndarray:
    """Row, column and slice directions in LPS as columns, oblique to every axis."""
    a, b = np.deg2rad(degrees), np.deg2rad(degrees / 2)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return z @ x


@disable_value_validation()
def write_series(
    folder: Path,
    style: Style,
    *,
    who: Who | None = None,
    number: int = 1,
    vendor: str = "SIEMENS",
    shape: tuple[int, int, int] = SHAPE,
    axes: np.ndarray | None = None,
    spacing: tuple[float, float, float] = (0.9, 1.1, 1.3),
    slope: float = 1.0,
    intercept: float = 0.0,
    minute: int | None = None,
    change: Callable[[Dataset, int], None] = lambda data, index: None,
    drop: tuple[int, ...] = (),
    enhanced: Callable[[Dataset], None] | None = None,
) -> Made:
    """spacing: between columns, rows, slices. change: edits each dataset. drop: slices left out.

    enhanced: where given, one enhanced multi-frame file is written, edited by it.
    """
    who = who or Who()
    axes = turned() if axes is None else axes
    rng = np.random.default_rng(number)
    stored = rng.integers(0, 1000, shape).astype(np.int16)
    steps = axes * np.array(spacing)
    start = -steps @ (np.array(shape) - 1) / 2
    slices = []
    for index in range(shape[2]):
        if index in drop:
            continue
        data = classic(style, who, number, vendor, minute)
        data.InstanceNumber = index + 1
        data.SOPInstanceUID = uid(who.id, who.date, number, index)
        place(data, start + steps[:, 2] * index, (axes[:, 0], axes[:, 1]), spacing)
        data.SliceLocation = f"{index * spacing[2]:.4f}"
        data.Rows, data.Columns = shape[1], shape[0]
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = np.ascontiguousarray(stored[:, :, index].T).tobytes()
        change(data, index)
        slices.append(data)
    made = slices
    if enhanced is not None:
        made = [join(slices)]
        enhanced(made[0])
    names = [folder / f"IM{number:03d}{n:04d}" for n in range(len(made))]
    for data, path in zip(made, names, strict=True):
        save(data, path)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, start
    voxels = stored * slope + intercept
    return Made(tuple(names), voxels, np.diag([-1.0, -1, 1, 1]) @ affine)


def place(data: Dataset, position, orientation, spacing) -> None:
    """orientation: directions of a row and a column. spacing: between columns, rows, slices."""
    data.ImagePositionPatient = [f"{v:.8f}"[:16] for v in position]
    data.ImageOrientationPatient = [f"{v:.12f}"[:16] for d in orientation for v in d]
    data.PixelSpacing = [spacing[1], spacing[0]]
    data.SliceThickness = data.SpacingBetweenSlices = spacing[2]


@disable_value_validation()
def save(data: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = FileDataset(str(path), dict(data), file_meta=meta, preamble=b"\0" * 128)
    whole.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=True)


def join(slices: Sequence[Dataset]) -> Dataset:
    """Classic slices as one Enhanced MR image (PS3.3 A.36.2), as the maker of the slices writes it.

    Philips: every group a frame's own, with the classic attributes in a private sequence of each
    frame. Siemens (XA): what all frames share stands once.
    """
    first = slices[0]
    philips = "philips" in first.Manufacturer.lower()
    data = Dataset()
    for element in first:
        if element.keyword not in _BY_FRAME:
            data.add(element)
    data.SOPClassUID = ENHANCED
    data.NumberOfFrames = len(slices)
    data.ImageType = [*first.ImageType[:2], "M" if philips else "VOLUME", "NONE"]
    data.EchoPulseSequence = "SPIN" if "SE" in first.ScanningSequence else "GRADIENT"
    data.EchoPlanarPulseSequence, data.PhaseContrast, data.TimeOfFlightContrast = "NO", "NO", "NO"
    data.AcquisitionDateTime = first.AcquisitionDate + first.AcquisitionTime
    if "ContrastBolusAgent" in first:
        data.ContrastBolusAgentSequence = [_coded("C-B0318", "SRT", first.ContrastBolusAgent)]
        data.ContrastBolusAgentSequence[0].ContrastBolusAgentNumber = 1
    data.DimensionOrganizationSequence = [_of(DimensionOrganizationUID=uid("dimensions"))]
    data.DimensionIndexSequence = [
        _of(DimensionOrganizationUID=uid("dimensions"), DimensionIndexPointer=pointer,
            FunctionalGroupPointer=0x00209111)
        for pointer in (0x00209056, 0x00209057)
    ]  # fmt: skip
    shared, frames = Dataset(), [Dataset() for _ in slices]
    for number, (frame, one) in enumerate(zip(frames, slices, strict=True), start=1):
        frame.FrameContentSequence = [
            _of(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number],
                FrameAcquisitionNumber=1, TemporalPositionIndex=1)
        ]  # fmt: skip
        frame.PlanePositionSequence = [_pick(one, "ImagePositionPatient")]
        _groups(frame if philips else shared, one)
        if philips:
            block = frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True)
            own = _pick(one, "EchoTime", "ImagePositionPatient", "ImageOrientationPatient",
                        "ScanningSequence", "RescaleSlope", "RescaleIntercept")  # fmt: skip
            block.add_new(0x0F, "SQ", [own])
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = frames
    data.PixelData = b"".join(one.PixelData for one in slices)
    return data


def _groups(group: Dataset, one: Dataset) -> None:
    """What shared functional groups hold (PS3.3 C.8.13.5)."""
    inversion = one.get("InversionTime")
    group.PlaneOrientationSequence = [_pick(one, "ImageOrientationPatient")]
    group.PixelMeasuresSequence = [
        _pick(one, "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")
    ]
    group.PixelValueTransformationSequence = [_pick(one, "RescaleSlope", "RescaleIntercept")]
    group.PixelValueTransformationSequence[0].RescaleType = "US"
    group.MREchoSequence = [_of(EffectiveEchoTime=float(one.EchoTime))]
    group.MRTimingAndRelatedParametersSequence = [_pick(one, "RepetitionTime", "FlipAngle")]
    group.MRModifierSequence = [_of(InversionRecovery="NO" if inversion is None else "YES")]
    if inversion is not None:
        group.MRModifierSequence[0].InversionTimes = [float(inversion)]
    group.MRImageFrameTypeSequence = [
        _of(FrameType=[*one.ImageType[:2], "M", "NONE"], PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME", ComplexImageComponent="MAGNITUDE",
            AcquisitionContrast="UNKNOWN")
    ]  # fmt: skip
    if "ContrastBolusAgent" in one:
        group.ContrastBolusUsageSequence = [
            _of(ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered="YES")
        ]


def _of(**values: object) -> Dataset:
    data = Dataset()
    for name, value in values.items():
        setattr(data, name, value)
    return data


def _pick(one: Dataset, *names: str) -> Dataset:
    return _of(**{n: one[n].value for n in names if n in one})


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    return _of(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def classic(style: Style, who: Who, number: int, vendor: str, minute: int | None) -> Dataset:
    """A slice without place and pixels."""
    data = Dataset()
    data.SOPClassUID = MR
    data.Modality = "MR"
    data.Manufacturer = vendor
    data.ManufacturerModelName = "Skyra" if vendor == "SIEMENS" else "SIGNA Premier"
    data.MagneticFieldStrength = 3
    data.ImageType = list(style.image_type)
    data.PatientID, data.PatientName = who.id, who.name
    data.PatientBirthDate, data.PatientAge, data.PatientSex = who.birth, who.age, who.sex
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = who.date
    data.StudyTime = who.time
    clock = f"{10 + (minute or number) // 60:02d}{(minute or number) % 60:02d}00"
    data.SeriesTime = data.AcquisitionTime = data.ContentTime = clock
    data.StudyInstanceUID = uid(who.id, who.date)
    data.SeriesInstanceUID = uid(who.id, who.date, number)
    data.FrameOfReferenceUID = uid(who.id, who.date, "frame")
    data.SeriesNumber, data.AcquisitionNumber = number, 1
    data.SeriesDescription = style.description
    data.ProtocolName = style.description
    data.BodyPartExamined = "HEAD"
    data.PatientPosition = "HFS"
    data.ScanningSequence = style.sequence.split("\\")
    data.SequenceVariant = style.variant.split("\\")
    data.MRAcquisitionType = "3D" if style.three_d else "2D"
    data.EchoTime, data.RepetitionTime, data.FlipAngle = style.echo, style.repetition, style.flip
    if style.inversion is not None:
        data.InversionTime = style.inversion
    if style.agent:
        data.ContrastBolusAgent = style.agent
    data.EchoNumbers = 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    for name, value in who.extra.items():
        setattr(data, name, value)
    return data


def write_study(
    folder: Path, vendor: str = "SIEMENS", who: Who | None = None, first: int = 1
) -> dict[str, Made]:
    """All four sequences, numbered from `first`."""
    return {
        name: write_series(folder / f"S{number}", style, who=who, number=number, vendor=vendor)
        for number, (name, style) in enumerate(VENDORS[vendor].items(), start=first)
    }


def tree(root: Path) -> dict[str, str]:
    """Every file below, with a digest of its bytes."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != ".lock"
    }
