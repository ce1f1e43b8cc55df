"""Runs `gliofed check`: locates cases, reads and compares them, reads tables; returns findings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import DEFAULT
from gliofed.errors import DataError
from gliofed.runtime.progress import Progress
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Mri
from gliofed.validation.codes import Severity
from gliofed.validation.findings import Finding, sort_findings
from gliofed.validation.locate import LocatedCase, LocatedSite, display_path, locate_set
from gliofed.validation.patient_table import check_table
from gliofed.validation.reader import SafeReader
from gliofed.validation.reader_messages import ReadRequest, ReadResponse


@dataclass(frozen=True)
class CaseThumbnail:
    """A case's thumbnail. png: empty where no image could be read."""

    case: str
    png: bytes
    sequences: tuple[Mri, ...]
    has_mask: bool


@dataclass(frozen=True)
class CheckResult:
    """The result of a check. seconds: wall time."""

    path: Path
    cases: int
    tables: int
    findings: tuple[Finding, ...]
    thumbnails: tuple[CaseThumbnail, ...]
    seconds: float

    def count(self, severity: Severity) -> int:
        """Findings of this severity."""
        return sum(f.severity is severity for f in self.findings)


def check_path(
    path: Path, pictures: bool, progress: Progress, format_id: str = DEFAULT
) -> CheckResult:
    """Check a BIDS hospital, a folder of them, a folder of case folders, an image or a table.

    pictures: whether to draw thumbnails. format_id: of a data set that is none of these. Raises
    DataError where `path` does not exist or the reading process cannot run, and as `locate_set`;
    every fault of the data is a finding.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the data set to check")
    started = time.monotonic()
    path = path.resolve()
    sites, odd = locate_set(path, format_id)
    findings, thumbnails = list(odd), []
    seen: dict[str, tuple[str, str]] = {}
    total = sum(len(s.cases) for s in sites)
    done = 0
    with SafeReader() as reader:
        for site in sites:
            for located in site.cases:
                response = reader.look(ReadRequest(located.images, located.masks, pictures))
                findings += _case_findings(path, site, located, response, seen)
                if pictures:
                    columns = tuple(s for s in SEQUENCES if s in located.images)
                    thumbnails.append(
                        CaseThumbnail(located.name, response.picture, columns, bool(located.masks))
                    )
                done += 1
                progress.update(done, total, located.name)
            findings += _missing(site)
    ids: dict[str, tuple[str, str]] = {}
    for site in sites:
        findings += _tables(path, site, ids)
    tables = sum(len(s.tables) for s in sites)
    seconds = time.monotonic() - started
    return CheckResult(path, total, tables, sort_findings(findings), tuple(thumbnails), seconds)


def _case_findings(
    root: Path,
    site: LocatedSite,
    located: LocatedCase,
    response: ReadResponse,
    seen: dict[str, tuple[str, str]],
) -> Iterator[Finding]:
    """The findings of one case, and images that an earlier case has too."""
    files = {s.value: p for s, p in located.images.items()} | dict(located.masks)
    if not located.images and site.name:
        yield Finding("SET-NO-IMAGES", located.name, located.subject, "no T1, T1CE, T2 or FLAIR")
    if not located.masks and located.images and site.name:
        yield Finding("SET-MASK-MISSING", located.name, "", "no mask was found")
    for where, fault in response.faults:
        file = display_path(files[where], root) if where in files else ""
        yield Finding(fault.code, located.name, file, fault.text)
    for name, digest in response.digests.items():
        other, file = seen.setdefault(digest, (located.name, name))
        if other != located.name:
            yield Finding(
                "SET-SCAN-TWICE",
                located.name,
                display_path(files[name], root),
                f"also {file} of {other}",
            )


def _missing(site: LocatedSite) -> Iterator[Finding]:
    """Missing sequences of each case; reported once for the site where every case lacks one."""
    cases = [p for p in site.cases if p.images]
    if not cases or not site.name:
        return
    present = {s for located in cases for s in located.images}
    for sequence in SEQUENCES:
        if sequence not in present:
            yield Finding("SET-SEQUENCE-NEVER", site.name, "", sequence.value)
    for located in cases:
        missing = [s.value for s in SEQUENCES if s in present and s not in located.images]
        if missing:
            yield Finding("SET-SEQUENCE-MISSING", located.name, "", ", ".join(missing))


def _tables(root: Path, site: LocatedSite, ids: dict[str, tuple[str, str]]) -> Sequence[Finding]:
    subjects = [p.subject for p in site.cases if p.images] if site.bids else None
    if site.bids and not site.tables:
        return [Finding("TAB-MISSING", site.name, "participants.tsv", "labels are read from it")]
    return [
        f
        for t in site.tables
        for f in check_table(t, display_path(t, root), site.name, subjects, ids)
    ]
