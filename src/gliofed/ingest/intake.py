"""`gliofed intake`: read DICOM headers, recognise sequences, convert them, write a BIDS folder."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gliofed.dicom.dicomweb import DicomWebServer, fetch, is_address
from gliofed.errors import DataError
from gliofed.ingest.archive import is_archive, unpack
from gliofed.ingest.bids_hospital import create_hospital, remove_partial_folders
from gliofed.ingest.blank_patients import name_blank_patients
from gliofed.ingest.decision_sheet import write_sheet
from gliofed.ingest.decisions import DecisionTable, read_decisions, write_questions
from gliofed.ingest.joined_slices import join_slices
from gliofed.ingest.plan import PatientPlan, SeriesPlan, SeriesStatus, plan_patient
from gliofed.ingest.private_tables import open_questions, series_reason, series_texts, write_series
from gliofed.ingest.pseudonyms import (
    PseudonymKey,
    PseudonymLink,
    check_links,
    open_private_folder,
    read_key,
    read_links,
)
from gliofed.ingest.series import BadFile, DicomSeries, FoundSeries, find_series
from gliofed.ingest.shared_ids import ask_whose_studies
from gliofed.ingest.subject import IngestFolders, PatientOutcome, PatientStatus, write_patient
from gliofed.runtime.files import alone_in
from gliofed.runtime.progress import NO_PROGRESS, Progress, ProgressCounter
from gliofed.types import Sequence


@dataclass(frozen=True)
class IngestRequest:
    """The source of an intake and its folders.

    source: a folder, an archive or a DICOMweb address. private: the folder for
    tables that stay at the site (default: `out` and "-private"). key: the pseudonyms' key (default:
    key.txt there). pacs: connection and query of a DICOMweb address. blank_patient: id of the one
    patient whose files have none. join_slices: whether series of one slice each that lie in one
    stack are one scan.
    """

    source: str
    out: Path
    private: Path | None = None
    key: Path | None = None
    pacs: DicomWebServer = field(default_factory=DicomWebServer)
    blank_patient: str = ""
    join_slices: bool = False


@dataclass(frozen=True)
class RuleUse:
    """A rule of decisions.tsv, and the number of series that it decided."""

    line: int
    word: str
    series: int


@dataclass(frozen=True)
class IngestResult:
    """The result of an intake. decisions: the table in which a person decides open series. sheet:
    the page with a slice of each of them, None where there is none."""

    outcomes: tuple[PatientOutcome, ...]
    bad: tuple[BadFile, ...]
    other: int
    copies: int
    private: Path
    decisions: Path
    rules: tuple[RuleUse, ...] = ()
    sheet: Path | None = None

    @property
    def status(self) -> int:
        """The exit status. 0: complete; 1: a file or series needs a person; 2: no usable series."""
        statuses = {o.status for o in self.outcomes}
        if not statuses - {PatientStatus.UNUSABLE}:
            return 2
        undecided = any(s.needs_decision for o in self.outcomes for s in o.plan.studies)
        return int(
            bool(self.bad)
            or undecided
            or bool(statuses & {PatientStatus.REFUSED, PatientStatus.UNDECIDED})
        )


def intake(request: IngestRequest, progress: Progress = NO_PROGRESS) -> IngestResult:
    """Convert a source into the hospital folder; sequences that exist there are skipped.

    Faults of single files and series are part of the result. Raises DataError: the source cannot
    be read, a table of the site is damaged, or two patients have one pseudonym. Raises
    CheckpointError: another intake uses the same folder.
    """
    out = request.out
    private = request.private or out.with_name(f"{out.resolve().name}-private")
    _check_folders(request, out, private)
    open_private_folder(private)
    with alone_in(private):
        key = read_key(_key_path(request, private))
        work = private / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            return _intake(request, progress, key, private, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _intake(
    request: IngestRequest, progress: Progress, key: PseudonymKey, private: Path, work: Path
) -> IngestResult:
    source_folder = _load_source(request, work, progress)
    progress.stage("reading headers")
    found = find_series(source_folder, progress)
    series = name_blank_patients(found.series, request.blank_patient.strip())
    found = replace(found, series=join_slices(series, request.join_slices))
    decisions = private / "decisions.tsv"
    decided = read_decisions(decisions)
    plans = _plans(found, key, decided)
    folders = IngestFolders(request.out, private / "links.tsv", work / "series")
    _check_pseudonyms(plans, folders.links)
    create_hospital(request.out)
    remove_partial_folders(request.out)
    progress.stage("converting series")
    counter = ProgressCounter(progress, sum(len(s.selected) for p in plans for s in p.studies))
    outcomes = tuple(write_patient(plan, folders, counter) for plan in plans)
    write_questions(decisions, open_questions(outcomes, key))
    write_series(private / "series.tsv", outcomes, found, source_folder, key)
    sheet = private / "decisions.html"
    drawn = write_sheet(sheet, outcomes, key, work / "picture", progress)
    return IngestResult(
        outcomes,
        found.bad,
        found.other,
        found.copies,
        private,
        decisions,
        rules=_rule_uses(decided, plans),
        sheet=sheet if drawn else None,
    )


def _load_source(request: IngestRequest, work: Path, progress: Progress) -> Path:
    """The folder of DICOM files: the source itself, fetched from a PACS, or unpacked."""
    if is_address(request.source):
        progress.stage("fetching from the PACS")
        folder = work / "fetched"
        folder.mkdir(mode=0o700)
        fetch(request.source, request.pacs, folder, progress)
        return folder
    source = Path(request.source)
    if source.is_dir():
        return source
    if not source.exists():
        raise DataError(f"{source}: no such folder or archive; give one, or a DICOMweb address")
    if not is_archive(source):
        raise DataError(f"{source}: neither a folder nor .zip, .tar, .tar.gz, .tgz or .tar.xz")
    progress.stage("unpacking the archive")
    folder = work / "unpacked"
    folder.mkdir(mode=0o700)
    unpack(source, folder, progress)
    return folder


def _plans(
    found: FoundSeries, key: PseudonymKey, decided: DecisionTable
) -> tuple[PatientPlan, ...]:
    """One plan a patient, ordered by pseudonym."""
    by_patient: dict[str, list[DicomSeries]] = defaultdict(list)
    for series in found.series:
        who = series.first.patient
        by_patient[key.patient(who.issuer, who.id)].append(series)
    decisions = {
        s.first.series: decided.of(key.series(s.first.series), series_texts(s.first))
        for s in found.series
    }
    by_uid = {uid: decision for uid, decision in decisions.items() if decision is not None}
    plans = tuple(
        ask_whose_studies(plan_patient(name, own, by_uid))
        for name, own in sorted(by_patient.items())
    )
    for plan in plans:
        for study in plan.studies:
            _check_decisions(study.series_plans, decided.path)
    return plans


def _rule_uses(decided: DecisionTable, plans: tuple[PatientPlan, ...]) -> tuple[RuleUse, ...]:
    used = Counter(
        v.decision.line
        for p in plans
        for s in p.studies
        for v in s.series_plans
        if v.decision is not None and v.decision.by_rule
    )
    lines = [(r.decision.line, r.decision.word) for r in decided.rules]
    return tuple(RuleUse(line, word, used[line]) for line, word in lines)


def _check_decisions(series_plans: tuple[SeriesPlan, ...], path: Path) -> None:
    """Raises DataError where a row of a series cannot count; rules do not apply there instead."""
    seen: dict[Sequence, int] = {}
    for series_plan in series_plans:
        decision = series_plan.decision
        if decision is None or decision.sequence is None or decision.by_rule:
            continue
        at = f"{path}:{decision.line}: {decision.word}"
        if series_plan.status is not SeriesStatus.SELECTED:
            raise DataError(
                f"{at} cannot be used: the series has a fault ({series_reason(series_plan)}); or "
                "write skip, or nothing"
            )
        if decision.sequence in seen:
            raise DataError(
                f"{at} of one study is decided twice, first on line {seen[decision.sequence]}; "
                "keep one, write skip for the other"
            )
        seen[decision.sequence] = decision.line


def _check_pseudonyms(plans: tuple[PatientPlan, ...], links: Path) -> None:
    """Raises DataError where two patients, new or known, have one pseudonym."""
    rows = [
        PseudonymLink(p.pseudonym, "", "", h.patient.issuer, h.patient.id, "", "")
        for p in plans
        for s in p.studies
        for v in s.series_plans
        for h in [v.series.first]
    ]
    check_links(links, (*read_links(links), *rows))


def _key_path(request: IngestRequest, private: Path) -> Path:
    """The path of the key. Raises DataError where it is missing and pseudonyms exist."""
    path = request.key or private / "key.txt"
    if not path.exists() and (private / "links.tsv").exists():
        raise DataError(
            f"{path}: no such key, but pseudonyms were made with one; restore it from its backup, "
            "or name its file with --key"
        )
    return path


def _check_folders(request: IngestRequest, out: Path, private: Path) -> None:
    hospital = out.resolve()
    if private.resolve().is_relative_to(hospital):
        raise DataError(
            f"{private}: the private folder is in the hospital folder; choose another one with "
            "--private"
        )
    if request.key is not None and request.key.resolve().is_relative_to(hospital):
        raise DataError(
            f"{request.key}: the key is in the hospital folder; move it, and name it with --key"
        )
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: is a file; name a folder with --out")
    if is_address(request.source):
        return
    with suppress(OSError):
        if Path(request.source).resolve().is_relative_to(hospital):
            raise DataError(
                f"{request.source}: the DICOM files lie in the hospital folder, which is shared; "
                "move them"
            )
