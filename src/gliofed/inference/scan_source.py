"""Loads the scans to predict: NIfTI as it is, DICOM after conversion.

<out>/hospital           the converted scans: BIDS, under pseudonyms
<out>/hospital-private   the table from pseudonyms to patients; it must not leave the site
<out>/dicom              DICOM files fetched or unpacked, to which results in DICOM refer
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gliofed.data.image_files import is_image
from gliofed.dicom.signature import is_dicom
from gliofed.errors import DataError, StudyError
from gliofed.inference.mask_export import SeriesLocation
from gliofed.runtime.progress import Progress
from gliofed.types import Sequence

if TYPE_CHECKING:  # the libraries of DICOM are an extra
    from gliofed.dicom.dicomweb import DicomWebServer
    from gliofed.ingest.intake import IngestResult
    from gliofed.ingest.pseudonyms import PseudonymLink

MAX_FILES_SNIFFED: Final = 2000
"""Maximum number of files of a folder that are opened to detect DICOM."""
_ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz")


@dataclass(frozen=True)
class LoadedScans:
    """folder: BIDS hospitals, case folders or images. series: of cases from DICOM, by subject.
    notes: series and patients that were not converted, each with the reason; they enter files that
    are sent on, so they name no path above `out`. private: the folder of decisions.tsv; None if no
    scan was DICOM."""

    folder: Path
    series: Mapping[str, Mapping[Sequence, SeriesLocation]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    private: Path | None = None


def load_scans(
    source: str, out: Path, pacs: DicomWebServer | None, progress: Progress
) -> LoadedScans:
    """The scans at `source`: a path, or a DICOMweb address with the query `pacs`.

    DICOM is converted below `out`; a second start converts new series. Raises DataError as
    `gliofed.ingest.intake.intake` and `gliofed.dicom.dicomweb.fetch` do, and where no series could
    be converted, with what to decide; StudyError where DICOM's packages are not installed.
    """
    path = Path(source)
    address = source.lower().startswith(("http://", "https://"))
    if not address and not _holds_dicom(path):
        return LoadedScans(path)
    try:
        from gliofed.dicom.dicomweb import DicomWebServer, fetch
        from gliofed.ingest.intake import IngestRequest, intake
    except ImportError as error:
        raise StudyError(
            f"DICOM needs packages that are not installed ({error}); install gliofed[hospital]"
        ) from error
    folder = path
    if address:
        folder = _emptied(out / "dicom")
        progress.stage("fetching from the PACS")
        fetch(source, pacs or DicomWebServer(), folder, progress)
    elif path.is_file():
        from gliofed.ingest.archive import unpack

        folder = _emptied(out / "dicom")
        progress.stage("unpacking the archive")
        unpack(path, folder, progress)
    account = intake(IngestRequest(str(folder), out / "hospital"), progress)
    from gliofed.ingest.pseudonyms import read_links

    links, notes = read_links(account.private / "links.tsv"), _notes(account)
    if not links:
        listed = "".join(f"\n  {note}" for note in notes)
        raise DataError(
            f"{source}: no series could be converted; the tables named below are in {out}{listed}"
        )
    series = _series(links, folder, _slices(account))
    return LoadedScans(out / "hospital", series, notes, account.private)


def _holds_dicom(path: Path) -> bool:
    """Whether a path is DICOM, by file name and by the first bytes of the files of a folder."""
    if path.is_file():
        return path.name.lower().endswith(_ARCHIVES)
    looked = 0
    for folder, _, names in os.walk(path):
        for name in sorted(names):
            looked += 1
            file = Path(folder) / name
            if is_image(file) or looked > MAX_FILES_SNIFFED:
                return False
            try:
                if is_dicom(file):
                    return True
            except OSError as error:
                raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    return False


def _emptied(folder: Path) -> Path:
    """Readable by its owner only, since the files name patients."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _slices(account: IngestResult) -> Mapping[str, tuple[tuple[Path, int], ...]]:
    """File and frame of each slice, by the UID of the series that was converted."""
    return {
        plan.series.first.series: tuple((h.path, h.frame) for h in plan.series.headers)
        for outcome in account.outcomes
        for study in outcome.plan.studies
        for plan in study.selected.values()
    }


def _series(
    links: tuple[PseudonymLink, ...],
    folder: Path,
    slices: Mapping[str, tuple[tuple[Path, int], ...]],
) -> Mapping[str, Mapping[Sequence, SeriesLocation]]:
    """Series by subject, of its first session, the only one that is predicted."""
    series: dict[str, dict[Sequence, SeriesLocation]] = {}
    first: dict[str, str] = {}
    for link in sorted(links, key=lambda link: link.session):
        subject = f"sub-{link.pseudonym}"
        if first.setdefault(subject, link.session) == link.session:
            sources = series.setdefault(subject, {})
            sources[Sequence(link.sequence)] = SeriesLocation(
                folder, link.series_uid, slices.get(link.series_uid, ())
            )
    return series


def _notes(account: IngestResult) -> tuple[str, ...]:
    """Series and patients that need a decision, by pseudonym and series number."""
    from gliofed.ingest.plan import SeriesStatus
    from gliofed.ingest.private_tables import series_reason
    from gliofed.ingest.subject import PatientStatus

    private = account.private.name
    out = [f"a file: {bad.fault}; its name is in {private}/series.tsv" for bad in account.bad]
    for outcome in account.outcomes:
        who = f"sub-{outcome.plan.pseudonym}"
        if outcome.status in (PatientStatus.REFUSED, PatientStatus.UNDECIDED):
            out.append(f"{who}: {outcome.note}")
        out += [
            f"{who}, series {verdict.series.first.number}: {series_reason(verdict)}; decide it in "
            f"{private}/{account.decisions.name} and run the same command again"
            for study in outcome.plan.studies
            if study.needs_decision
            for verdict in study.series_plans
            if verdict.status in (SeriesStatus.UNDECIDED, SeriesStatus.FAULTY)
        ]
    return tuple(out)
