"""Files to series, and what is wrong with a series; one fault each, with its cure."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.dicom.enhanced import ENHANCED
from gliofed.dicom.geometry import (
    SAME_POSITION_MM,
    count_repeated,
    in_order,
    plane_differences,
    stack_of,
)
from gliofed.dicom.headers import MR, DicomHeader, is_uid, read_headers, walk_files
from gliofed.dicom.signature import is_dicom
from gliofed.errors import DataError
from gliofed.runtime.progress import Progress

MIN_SLICES: Final = 10
"""Slices; a head at the usual 4 to 6 mm has 20 or more."""
SIDEWAYS_MM: Final = 0.1
UNEVEN: Final = 0.05
"""Of a step, from a regular block; scanners round positions, and so little moves no outline."""
NO_IMAGES: Final = frozenset({"SR", "PR", "KO", "SEG", "REG", "DOC", "RTSTRUCT", "PLAN", "FID"})
READABLE: Final = frozenset(
    {
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2.2",  # uncompressed
        "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",  # JPEG lossless
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",  # JPEG-LS and JPEG 2000, lossless
        "1.2.840.10008.1.2.5",  # RLE
    }
)
"""Transfer syntaxes of PS3.5 that dcm2niix decodes and that lose nothing."""


@dataclass(frozen=True)
class SeriesFault:
    """Why a file or series cannot be used, and what to do. Names no patient; path may."""

    what: str
    cure: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}"


@dataclass(frozen=True)
class DicomSeries:
    """One SeriesInstanceUID: its instances or their frames, each once.

    fault: None where it can be converted.
    """

    headers: tuple[DicomHeader, ...]
    fault: SeriesFault | None

    @property
    def first(self) -> DicomHeader:
        """An instance to read what all share from."""
        return self.headers[0]

    @property
    def files(self) -> int:
        """How many there are; one may hold many slices."""
        return len({h.path for h in self.headers})


@dataclass(frozen=True)
class BadFile:
    """A file that belongs to no series, by its path within the source."""

    path: Path
    fault: SeriesFault


@dataclass(frozen=True)
class FoundSeries:
    """What a folder holds. other: files that are no DICOM; copies: instances found again."""

    series: tuple[DicomSeries, ...]
    bad: tuple[BadFile, ...]
    other: int
    copies: int


def find_series(folder: Path, progress: Progress) -> FoundSeries:
    """Read every header below `folder`. Faults are in what comes back.

    Raises DataError where a folder within cannot be read.
    """
    headers: list[DicomHeader] = []
    bad: list[BadFile] = []
    other = 0
    for count, path in enumerate(walk_files(folder), start=1):
        progress.update(count, max(count, 1), f"{count} files")
        try:
            if not is_dicom(path):
                other += 1
                continue
            own = read_headers(path)
        except DataError as error:
            what, _, cure = str(error).partition("; ")
            bad.append(BadFile(path.relative_to(folder), SeriesFault(what, cure)))
            continue
        except OSError as error:
            fault = SeriesFault(
                f"cannot be read ({error.strerror})", "check its rights and the disk"
            )
            bad.append(BadFile(path.relative_to(folder), fault))
            continue
        missing = _nameless(own[0]) if own else None
        if missing is not None:
            bad.append(BadFile(path.relative_to(folder), missing))
        else:
            headers += own
    series, copies = group_series(headers)
    return FoundSeries(series, tuple(bad), other, copies)


def group_series(headers: Iterable[DicomHeader]) -> tuple[tuple[DicomSeries, ...], int]:
    """By SeriesInstanceUID, ordered by study date, time and number; and how many were copies."""
    by_uid: dict[str, dict[tuple[str, int], DicomHeader]] = defaultdict(dict)
    twice: set[str] = set()
    copies = 0
    for header in headers:
        own = by_uid[header.series]
        there = own.setdefault((header.instance, header.frame), header)
        if there is not header:
            copies += header.frame <= 1
            if dataclasses.replace(header, path=there.path) != there:
                twice.add(header.series)
    clash = SeriesFault("two different files have one instance UID", "export the series again")
    made = [
        DicomSeries(
            tuple(own.values()), clash if uid in twice else series_fault(tuple(own.values()))
        )
        for uid, own in by_uid.items()
    ]
    made.sort(key=lambda s: (s.first.date, s.first.time, s.first.number or 0, s.first.series))
    return tuple(made), copies


def series_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """The first fault of a series by what each file says it is; see `consistency_fault` for the rest."""
    first = headers[0]
    for h in headers:
        if not all(map(is_uid, (h.study, h.series, h.instance))):
            return SeriesFault(
                "a UID holds characters that no UID may hold (digits and dots, at most 64)",
                "have the sender correct it; it was not used as a name",
                h.path,
            )
        if h.modality != "MR" and h.modality not in NO_IMAGES:
            shown = h.modality if h.modality.isalpha() and len(h.modality) <= 4 else "unknown"
            return SeriesFault(f"modality {shown}, not MR", "leave it out of the export", h.path)
        if h.burned_in:
            return SeriesFault(
                "BurnedInAnnotation is YES: the pixels may show the patient's name",
                "export the original images",
                h.path,
            )
    if not first.patient.id:
        return SeriesFault("no patient id", "give the patient an id")
    return None


def consistency_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """The first fault of an MR series' files that keeps them from being one kind of slice."""
    several = _frames_fault(headers)
    if several is not None:
        return several
    for h in headers:
        if h.kind not in (MR, *ENHANCED):
            return SeriesFault("not MR Image Storage", "export the original images", h.path)
        if not h.pixels:
            return SeriesFault("a file has no pixel data", "export it again", h.path)
        if h.cut:
            return SeriesFault("a file is cut short", "copy or export it again", h.path)
        if h.syntax not in READABLE:
            shown = h.syntax if is_uid(h.syntax) else "unknown"
            return SeriesFault(
                f"transfer syntax {shown} is lossy or cannot be decoded",
                "export uncompressed (Explicit VR Little Endian)",
                h.path,
            )
    what = _mixed(headers)
    return SeriesFault(what, "export each part as a series of its own") if what else None


def _frames_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """Frames that nothing describes, or of several files."""
    cure = "export {}, or as classic MR images, one slice a file"
    for h in headers:
        if not h.frame and (h.kind in ENHANCED or h.frames > 1):
            return SeriesFault(
                "several frames in a file, but not each described as enhanced multi-frame MR does",
                cure.format("it again"),
                h.path,
            )
    if any(h.frame for h in headers) and len({h.path for h in headers}) > 1:
        return SeriesFault(
            "an enhanced multi-frame file and others in one series",
            cure.format("each as a series of its own"),
            headers[0].path,
        )
    return None


def multiple_volumes_reason(headers: tuple[DicomHeader, ...]) -> str:
    """Why a series that is not mixed is more than one volume; empty where it is one."""
    again = count_repeated(headers)
    if not again:
        return ""
    return f"{again} slices lie where another one lies: several echoes, b-values or times"


def spacing_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """Slices of a series that is one volume: too few, missing, uneven or shifted."""
    what = _spoiled(headers)
    return SeriesFault(what, "export all slices of the series again") if what else None


def _mixed(headers: tuple[DicomHeader, ...]) -> str:
    """What is in one series that must not be; empty where nothing is."""
    missing = sum(h.plane is None for h in headers)
    if missing:
        return f"{missing} slices have no position, orientation, pixel spacing or matrix"
    rescales = len({h.rescale for h in headers})  # several volumes may have each its own
    planes = plane_differences(headers)
    checks = (
        (len({(h.patient.issuer, h.patient.id) for h in headers}) > 1, "two patient ids"),
        (len({h.study for h in headers}) > 1, "two studies"),
        (planes != "", planes),
        (rescales > 1 and not count_repeated(headers), "two rescale slopes or intercepts"),
    )
    what = next((text for bad, text in checks if bad), "")
    return f"{what} in one series" if what else ""


def _spoiled(headers: tuple[DicomHeader, ...]) -> str:
    """Too few slices, missing ones, uneven or sideways steps, of a series neither mixed nor
    repeated; empty where the slices are one regular block."""
    if len(headers) < MIN_SLICES:
        return f"{len(headers)} slices; expected at least {MIN_SLICES}"
    stack = stack_of(in_order(headers))
    if stack.gaps:
        each = "; ".join(
            f"{g.missing} missing between slices {g.after} and {g.after + 1}, a gap of "
            f"{g.wide:.1f} mm at {g.at:.1f} mm along the normal"
            for g in stack.gaps[:3]
        )
        more = f"; and {len(stack.gaps) - 3} more gaps" if len(stack.gaps) > 3 else ""
        return f"slices are missing where the usual step is {stack.usual:.2f} mm: {each}{more}"
    if stack.off > max(UNEVEN * stack.usual, SAME_POSITION_MM):
        return (
            f"uneven steps: slice {stack.worst} lies {stack.off:.2f} mm from its place in a "
            f"regular block with steps of {stack.usual:.2f} mm"
        )
    if stack.sideways > SIDEWAYS_MM:
        return f"slices are shifted sideways by up to {stack.sideways:.2f} mm (a tilted gantry)"
    return ""


def _nameless(header: DicomHeader) -> SeriesFault | None:
    if header.series and header.study and header.instance:
        return None
    return SeriesFault(
        "has no study, series or instance UID", "it may be cut short; export it again"
    )
