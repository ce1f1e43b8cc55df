"""The private tables for a person: the status of every series, and the open decisions."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Final

from gliofed.dicom.headers import DicomHeader
from gliofed.ingest.decisions import DecisionQuestion, SeriesTexts
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.ingest.pseudonyms import PseudonymKey
from gliofed.ingest.series import FoundSeries
from gliofed.ingest.subject import PatientOutcome
from gliofed.runtime.files import write_private

SERIES: Final = (
    "patient",
    "study",
    "number",
    "description",
    "files",
    "first_file",
    "status",
    "sequence",
    "confidence",
    "reason",
    "series",
)


def series_rows(outcome: PatientOutcome) -> Iterator[tuple[int, SeriesPlan]]:
    """Every series with the number of its study by date, from 1."""
    for number, study in enumerate(outcome.plan.studies, start=1):
        for series_plan in study.series_plans:
            yield number, series_plan


def identifying_words(outcome: PatientOutcome) -> frozenset[str]:
    """Names of persons and places in a patient's headers, which are not printed."""
    return frozenset(
        w for _, v in series_rows(outcome) for h in v.series.headers for w in h.patient.words
    )


def series_reason(series_plan: SeriesPlan) -> str:
    """The reason for the status of a series."""
    return str(series_plan.fault) if series_plan.fault is not None else series_plan.guess.reason


def series_texts(head: DicomHeader) -> SeriesTexts:
    """The texts of a series that a rule compares."""
    scanner = f"{head.scanner.manufacturer} {head.scanner.model}".strip()
    return SeriesTexts(head.description, head.protocol, scanner)


def open_questions(outcomes: Iterable[PatientOutcome], key: PseudonymKey) -> list[DecisionQuestion]:
    """A row for every undecided or faulty series."""
    out = []
    for outcome in outcomes:
        for number, v in series_rows(outcome):
            if v.status not in (SeriesStatus.UNDECIDED, SeriesStatus.FAULTY):
                continue
            head = v.series.first
            names = ", ".join(s.value for s in v.guess.candidates) or "skip"
            cells = (
                outcome.plan.pseudonym,
                str(number),
                _number(head),
                *map(_cell, astuple(series_texts(head))),
                _cell(acquisition_text(head)),
                "skip" if v.fault else names,
                f"{v.guess.confidence:.2f}",
                _cell(f"{series_reason(v)}{'; or write skip' if v.fault else ''}"),
            )
            out.append(DecisionQuestion(key.series(head.series), cells))
    return out


def write_series(
    path: Path,
    outcomes: Iterable[PatientOutcome],
    found: FoundSeries,
    folder: Path,
    key: PseudonymKey,
) -> None:
    """Write every series of the last run, with file names; the table stays at the site."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(SERIES)
    for outcome in outcomes:
        for number, v in series_rows(outcome):
            head = v.series.first
            at = v.fault.path if v.fault is not None and v.fault.path is not None else head.path
            writer.writerow(
                (
                    outcome.plan.pseudonym,
                    number,
                    _number(head),
                    _cell(head.description),
                    v.series.files,
                    _cell(str(at.relative_to(folder))),
                    v.status.value,
                    v.sequence.value if v.sequence else "",
                    f"{v.guess.confidence:.2f}",
                    _cell(series_reason(v)),
                    key.series(head.series),
                )
            )
    for bad in found.bad:
        writer.writerow(
            (
                "",
                "",
                "",
                "",
                1,
                _cell(str(bad.path)),
                SeriesStatus.FAULTY.value,
                "",
                "",
                _cell(str(bad.fault)),
                "",
            )
        )
    write_private(path, text.getvalue())


def acquisition_text(head: DicomHeader) -> str:
    """Times in ms, flip angle, 2D or 3D, contrast agent and image type, where they are known."""
    t = head.timing
    parts = [
        f"{name} {value:g}"
        for name, value in (
            ("TE", t.echo),
            ("TR", t.repetition),
            ("TI", t.inversion),
            ("flip", t.flip),
        )
        if value is not None
    ]
    parts += [*([t.dimension] if t.dimension else []), *(["contrast agent"] if t.agent else [])]
    return ", ".join([*parts, "\\".join(head.image_type)])


def _number(head: DicomHeader) -> str:
    return "" if head.number is None else str(head.number)


def _cell(text: str) -> str:
    """One cell without tab, line end, quote, or a beginning that spreadsheets run as a formula."""
    plain = " ".join(text.replace('"', "'").replace("\0", " ").split())
    return f" {plain}" if plain[:1] in ("=", "+", "-", "@") else plain
