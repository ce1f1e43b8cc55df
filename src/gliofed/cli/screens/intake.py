"""The result of `gliofed intake`: one table a study, then the decisions that are needed."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gliofed.ingest.intake import IngestResult
from gliofed.ingest.plan import SeriesPlan, SeriesStatus, StudyPlan
from gliofed.ingest.private_tables import identifying_words, series_reason
from gliofed.ingest.redaction import redact
from gliofed.ingest.subject import PatientOutcome
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.types import SEQUENCES

WIDTH = 120
"""Columns where the output is not a terminal."""
_STYLE = {
    SeriesStatus.SELECTED: "green",
    SeriesStatus.UNDECIDED: "yellow",
    SeriesStatus.FAULTY: "bold red",
}


def show_intake(account: IngestResult, out: Path) -> None:
    """By pseudonym: one line a study, one row a series; then the decisions that are needed."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDTH)
    for outcome in account.outcomes:
        _show_patient(outcome, console)
    for bad in account.bad:
        text = f"a file: {bad.fault}; its name is in series.tsv"
        console.print(Text(text, style="bold red"), soft_wrap=True)
    undecided = sum(
        v.status in (SeriesStatus.UNDECIDED, SeriesStatus.FAULTY)
        for o in account.outcomes
        for s in o.plan.studies
        for v in s.series_plans
    )
    lines = [
        f"{len(account.outcomes)} patients; {account.other} files are not DICOM, {account.copies} "
        f"are copies. Hospital: {out}",
        f"Private, must not leave this site: {account.private}",
    ]
    if undecided:
        lines.append(
            f"{undecided} series need a decision: fill the column decision in {account.decisions} "
            "and run the same command again; a row with * as series decides all with its texts"
        )
    if account.sheet is not None:
        lines.append(f"A slice of each of them: {account.sheet}")
    lines += [
        f"The rule on line {r.line} of {account.decisions} decides {r.series} series: {r.word}"
        + ("" if r.series else "; compare its texts with those of other rows")
        for r in account.rules
    ]
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    console.print(RESEARCH_USE_ONLY)


def _show_patient(outcome: PatientOutcome, console: Console) -> None:
    words = identifying_words(outcome)
    for number, study in enumerate(outcome.plan.studies, start=1):
        name = outcome.sessions.get(study.uid) or f"study {number}"
        has = (
            ", ".join(s.value for s in SEQUENCES if s in study.selected) or "none of the sequences"
        )
        title = Text(f"sub-{outcome.plan.pseudonym} {name}: {has}", style="bold")
        title.append(f" ({outcome.status.value})", style="dim")
        console.print(title, soft_wrap=True)
        console.print(_table(study, words))
    if outcome.note:
        console.print(Text(f"  {outcome.note}", style="yellow"), soft_wrap=True)


def _table(study: StudyPlan, words: frozenset[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for title in ("series", "description", "files", "result", "confidence", "reason"):
        table.add_column(title, overflow="fold", ratio=1 if title == "reason" else None)
    for v in study.series_plans:
        head = v.series.first
        result = v.sequence.value if v.sequence else v.status.value
        table.add_row(
            "?" if head.number is None else str(head.number),
            Text(redact(head.description, words)),
            str(v.series.files),
            Text(result, style=_STYLE.get(v.status, "dim")),
            _confidence(v),
            Text(_why(v, words)),
        )
    return table


def _confidence(series_plan: SeriesPlan) -> str:
    return (
        "" if series_plan.status is SeriesStatus.FAULTY else f"{series_plan.guess.confidence:.2f}"
    )


def _why(series_plan: SeriesPlan, words: frozenset[str]) -> str:
    """The reason; a fault has its file, an undecided series its candidates."""
    why = series_reason(series_plan)
    if series_plan.fault is not None and series_plan.fault.path is not None:
        return f"{why} (file {redact(series_plan.fault.path.name, words)})"
    if series_plan.status is SeriesStatus.UNDECIDED:
        names = " or ".join(s.value for s in series_plan.guess.candidates)
        return f"{names}? {why}"
    return why
