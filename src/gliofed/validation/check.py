"""The whole check: locate, read every case, compare cases, read tables; findings come back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.errors import DataError
from gliofed.runtime.progress import Progress
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Mri
from gliofed.validation.codes import Severity
from gliofed.validation.findings import Finding, sort_findings
from gliofed.validation.locate import LocatedCase, LocatedSite, display_path, locate
from gliofed.validation.patient_table import check_table
from gliofed.validation.reader import SafeReader
from gliofed.validation.reader_messages import ReadRequest, ReadResponse


@dataclass(frozen=True)
class CaseThumbnail:
    """A case's thumbnail. png: empty where no image could be shown."""

    case: str
    png: bytes
    sequences: tuple[Mri, ...]
    outlined: bool


@dataclass(frozen=True)
class CheckResult:
    """Everything the check found. seconds: of wall time for all cases."""

    path: Path
    cases: int
    tables: int
    findings: tuple[Finding, ...]
    pictures: tuple[CaseThumbnail, ...]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Findings of this severity."""
        return sum(f.severity is severity for f in self.findings)


def check_path(path: Path, pictures: bool, progress: Progress) -> CheckResult:
    """Check a BIDS hospital, a folder of them, a folder of case folders, an image or a table.

    pictures: whether to draw thumbnails. Raises DataError where `path` does not exist or the
    reading process cannot run; every fault of the data is a finding.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the data set to be checked")
    started = time.monotonic()
    path = path.resolve()
    sites, odd = locate(path)
    findings, shots = list(odd), []
    seen: dict[str, tuple[str, str]] = {}
    total = sum(len(s.places) for s in sites)
    done = 0
    with SafeReader() as reader:
        for site in sites:
            for place in site.places:
                looked = reader.look(ReadRequest(place.images, place.masks, pictures))
                findings += _place_findings(path, site, place, looked, seen)
                if pictures:
                    columns = tuple(s for s in SEQUENCES if s in place.images)
                    shots.append(
                        CaseThumbnail(place.case, looked.picture, columns, bool(place.masks))
                    )
                done += 1
                progress.update(done, total, place.case)
            findings += _missing(site)
    ids: dict[str, tuple[str, str]] = {}
    for site in sites:
        findings += _tables(path, site, ids)
    tables = sum(len(s.tables) for s in sites)
    seconds = time.monotonic() - started
    return CheckResult(path, total, tables, sort_findings(findings), tuple(shots), seconds)


def _place_findings(
    root: Path,
    site: LocatedSite,
    place: LocatedCase,
    looked: ReadResponse,
    seen: dict[str, tuple[str, str]],
) -> Iterator[Finding]:
    """What the child found, with case and file; and images that an earlier case had already."""
    files = {s.value: p for s, p in place.images.items()} | dict(place.masks)
    if not place.images and site.name:
        yield Finding("SET-NO-IMAGES", place.case, place.subject, "no T1, T1CE, T2 or FLAIR")
    if not place.masks and place.images and site.name:
        yield Finding("SET-MASK-MISSING", place.case, "", "nobody's outline was found")
    for where, fault in looked.faults:
        file = display_path(files[where], root) if where in files else ""
        yield Finding(fault.code, place.case, file, fault.text)
    for name, digest in looked.digests.items():
        other, file = seen.setdefault(digest, (place.case, name))
        if other != place.case:
            yield Finding(
                "SET-SCAN-TWICE",
                place.case,
                display_path(files[name], root),
                f"also {file} of {other}",
            )


def _missing(site: LocatedSite) -> Iterator[Finding]:
    """Sequences that a case lacks, told once for the site where every case does."""
    cases = [p for p in site.places if p.images]
    if not cases or not site.name:
        return
    there = {s for place in cases for s in place.images}
    for sequence in SEQUENCES:
        if sequence not in there:
            yield Finding("SET-SEQUENCE-NEVER", site.name, "", sequence.value)
    for place in cases:
        lacks = [s.value for s in SEQUENCES if s in there and s not in place.images]
        if lacks:
            yield Finding("SET-SEQUENCE-MISSING", place.case, "", ", ".join(lacks))


def _tables(root: Path, site: LocatedSite, ids: dict[str, tuple[str, str]]) -> Sequence[Finding]:
    subjects = [p.subject for p in site.places if p.images] if site.bids else None
    if site.bids and not site.tables:
        return [Finding("TAB-MISSING", site.name, "participants.tsv", "the labels stand there")]
    return [
        f
        for t in site.tables
        for f in check_table(t, display_path(t, root), site.name, subjects, ids)
    ]
