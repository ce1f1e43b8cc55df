"""Groups DICOM files into series and checks each series; the first fault comes with its cure."""

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
    SliceStack,
    count_repeated,
    in_order,
    plane_differences,
    stack_of,
)
from gliofed.dicom.headers import MR, DicomHeader, is_uid, read_headers
from gliofed.dicom.signature import is_dicom
from gliofed.dicom.walk import walk_files
from gliofed.errors import DataError
from gliofed.runtime.progress import Progress

MIN_SLICES: Final = 10
"""Slices of a series at least; a head has 20 or more at the usual 4 to 6 mm."""
MAX_SIDEWAYS_MM: Final = 0.1
MAX_UNEVEN_SHARE: Final = 0.1
"""Largest deviation of a slice from regular steps, as a share of the step."""
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
"""Lossless transfer syntaxes of PS3.5 that dcm2niix decodes."""
_OR_MOVE: Final = ", or move it out of the source"


@dataclass(frozen=True)
class SeriesFault:
    """Why a file or series cannot be used, and its cure. Only `path` may name a patient."""

    what: str
    cure: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.what}; {self.cure}"


@dataclass(frozen=True)
class DicomSeries:
    """One SeriesInstanceUID: its instances or their frames, each once.

    fault: None where it can be converted. joined: number of SeriesInstanceUIDs; above 1 for a scan
    of which each slice has one, joined by position. agreed: whether a person wants them joined.
    """

    headers: tuple[DicomHeader, ...]
    fault: SeriesFault | None
    joined: int = 1
    agreed: bool = False

    @property
    def first(self) -> DicomHeader:
        """The first instance, for attributes that all share."""
        return self.headers[0]

    @property
    def files(self) -> int:
        """Number of files; one may hold many slices."""
        return len({h.path for h in self.headers})


@dataclass(frozen=True)
class BadFile:
    """A file that belongs to no series. path: relative to the source."""

    path: Path
    fault: SeriesFault


@dataclass(frozen=True)
class FoundSeries:
    """The series below a folder. other: number of other files. copies: of repeated instances."""

    series: tuple[DicomSeries, ...]
    bad: tuple[BadFile, ...]
    other: int
    copies: int


def find_series(folder: Path, progress: Progress) -> FoundSeries:
    """Read every header below `folder`; faults of files and series are part of the result.

    Raises DataError where a subfolder cannot be read.
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
            file_headers = read_headers(path)
        except DataError as error:
            what, _, cure = str(error).partition("; ")
            bad.append(BadFile(path.relative_to(folder), SeriesFault(what, cure + _OR_MOVE)))
            continue
        except OSError as error:
            fault = SeriesFault(
                f"cannot be read ({error.strerror})", f"check its rights and the disk{_OR_MOVE}"
            )
            bad.append(BadFile(path.relative_to(folder), fault))
            continue
        missing = _missing_uid(file_headers[0]) if file_headers else None
        if missing is not None:
            bad.append(BadFile(path.relative_to(folder), missing))
        else:
            headers += file_headers
    series, copies = group_series(headers)
    return FoundSeries(series, tuple(bad), other, copies)


def group_series(headers: Iterable[DicomHeader]) -> tuple[tuple[DicomSeries, ...], int]:
    """Series by study date, time and number, and the number of repeated instances."""
    by_uid: dict[str, dict[tuple[str, int], DicomHeader]] = defaultdict(dict)
    conflicting: set[str] = set()
    copies = 0
    for header in headers:
        instances = by_uid[header.series]
        known = instances.setdefault((header.instance, header.frame), header)
        if known is not header:
            copies += header.frame <= 1
            if dataclasses.replace(header, path=known.path) != known:
                conflicting.add(header.series)
    conflict = SeriesFault("two different files have one instance UID", "export the series again")
    series = [
        DicomSeries(
            tuple(instances.values()),
            conflict if uid in conflicting else series_fault(tuple(instances.values())),
        )
        for uid, instances in by_uid.items()
    ]
    series = [part for one in series for part in split_echoes(one)]
    return tuple(sorted(series, key=study_order)), copies


def study_order(series: DicomSeries) -> tuple[str, str, int, str]:
    """By study date and time, then number and UID."""
    head = series.first
    return head.date, head.time, head.number or 0, head.series


def split_echoes(series: DicomSeries) -> tuple[DicomSeries, ...]:
    """A series that repeats its positions at several echo times, as one series an echo.

    Each part has its echo time after the UID, so that a person decides on each. Unchanged: a
    faulty series, one echo time, or slices without a position.
    """
    headers = series.headers
    times = [None if h.timing.echo is None else round(h.timing.echo, 1) for h in headers]
    echoes = sorted({t for t in times if t is not None})
    known = None not in times and all(h.plane is not None for h in headers)
    if series.fault or not known or len(echoes) < 2 or not count_repeated(headers):
        return (series,)
    return tuple(
        DicomSeries(
            tuple(
                dataclasses.replace(h, series=f"{h.series} TE {echo:g}")
                for h, time in zip(headers, times, strict=True)
                if time == echo
            ),
            None,
        )
        for echo in echoes
    )


def series_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """The first fault in what a series' headers declare; `consistency_fault` checks the rest."""
    for h in headers:
        if not all(map(is_uid, (h.study, h.series, h.instance))):
            return SeriesFault(
                "a UID is not valid (expected digits and dots, at most 64 characters)",
                "have the sender correct it",
                h.path,
            )
        if h.modality != "MR" and h.modality not in NO_IMAGES:
            label = h.modality if h.modality.isalpha() and len(h.modality) <= 4 else "unknown"
            return SeriesFault(f"modality {label}, not MR", "leave it out of the export", h.path)
        if h.burned_in:
            return SeriesFault(
                "BurnedInAnnotation is YES: the pixels may show the patient's name",
                "export the original images",
                h.path,
            )
    return None


def joined_fault(series: DicomSeries) -> SeriesFault | None:
    """The fault of slices with a SeriesInstanceUID each that nobody wanted to be joined."""
    if series.joined == 1 or series.agreed:
        return None
    return SeriesFault(
        f"{series.joined} series of one slice each lie in one stack: a SeriesInstanceUID a slice",
        "if they are one scan, run `gliofed intake` with --join-slices, which joins them by "
        "position",
    )


def consistency_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """The first fault for which an MR series is not one consistent set of slices."""
    frames_fault = _frames_fault(headers)
    if frames_fault is not None:
        return frames_fault
    for h in headers:
        if h.kind not in (MR, *ENHANCED):
            return SeriesFault("not MR Image Storage", "export the original images", h.path)
        if not h.pixels:
            return SeriesFault("a file has no pixel data", "export it again", h.path)
        if h.cut:
            return SeriesFault("a file is truncated", "copy or export it again", h.path)
        if h.syntax not in READABLE:
            label = h.syntax if is_uid(h.syntax) else "unknown"
            return SeriesFault(
                f"transfer syntax {label} is lossy or cannot be decoded",
                "export uncompressed (Explicit VR Little Endian)",
                h.path,
            )
    problem = _mixed(headers)
    return SeriesFault(problem, "export each part as a series of its own") if problem else None


def _frames_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """A fault of frames without a description, or spread over several files."""
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
    """Why a consistent series holds more than one volume; empty where it holds one."""
    count = count_repeated(headers)
    if not count:
        return ""
    return f"{count} slices share a position with another: several volumes"


def spacing_fault(headers: tuple[DicomHeader, ...]) -> SeriesFault | None:
    """The fault of a volume whose slices are too few, missing, uneven or shifted."""
    if len(headers) < MIN_SLICES:
        what = f"{len(headers)} slices; expected at least {MIN_SLICES}"
        return SeriesFault(what, "if the scanner made more, export all slices of the series")
    stack = stack_of(in_order(headers))
    if stack.gaps:
        return SeriesFault(_gaps_text(stack), "export all slices of the series again")
    if stack.off > max(MAX_UNEVEN_SHARE * stack.usual, SAME_POSITION_MM):
        return SeriesFault(
            f"uneven steps: slice {stack.worst} lies {stack.off:.2f} mm from its place in a "
            f"regular block with steps of {stack.usual:.2f} mm",
            "export the original series, with all slices",
        )
    if stack.sideways > MAX_SIDEWAYS_MM:
        return SeriesFault(
            f"slices are shifted sideways by up to {stack.sideways:.2f} mm (a tilted gantry)",
            "export the original series",
        )
    return None


def _gaps_text(stack: SliceStack) -> str:
    each = "; ".join(
        f"{g.missing} missing between slices {g.after} and {g.after + 1}, a gap of "
        f"{g.wide:.1f} mm at {g.at:.1f} mm along the normal"
        for g in stack.gaps[:3]
    )
    more = f"; and {len(stack.gaps) - 3} more gaps" if len(stack.gaps) > 3 else ""
    return f"slices are missing where the usual step is {stack.usual:.2f} mm: {each}{more}"


def _mixed(headers: tuple[DicomHeader, ...]) -> str:
    """Why the slices of a series do not belong together; empty where they do."""
    missing = sum(h.plane is None for h in headers)
    if missing:
        return f"{missing} slices have no position, orientation, pixel spacing or matrix"
    rescales = len({h.rescale for h in headers})  # each of several volumes may have its own
    planes = plane_differences(headers)
    checks = (
        (len({(h.patient.issuer, h.patient.id) for h in headers}) > 1, "two patient ids"),
        (len({h.study for h in headers}) > 1, "two studies"),
        (planes != "", planes),
        (rescales > 1 and not count_repeated(headers), "two rescale slopes or intercepts"),
    )
    problem = next((text for bad, text in checks if bad), "")
    return f"{problem} in one series" if problem else ""


def _missing_uid(header: DicomHeader) -> SeriesFault | None:
    if header.series and header.study and header.instance:
        return None
    return SeriesFault(
        "has no study, series or instance UID",
        f"it may be truncated; export it again{_OR_MOVE}",
    )
