"""Progress and results in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from gliofed.evaluation.by_case.score_table import ALL_SITES, MEDIAN_MODEL
from gliofed.evaluation.results import ScoreRow
from gliofed.experiments.finished_run import FinishedRun
from gliofed.markers import MARKERS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.html.formatting import is_single_site, model_title

FIRST: Final = ("federated", "pooled", MEDIAN_MODEL)
TITLES: Final = {
    "external": "External test: mean (95 % interval)",
    "holdout": "Own hospitals' test: mean (95 % interval)",
}


class TerminalProgress:
    """A `Progress` that draws one bar; where the output is no terminal, one line a stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._out = sys.stdout  # the bar puts its own in that place
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._text = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._close()

    def stage(self, text: str) -> None:
        """Close the stage before and open the next."""
        self._close()
        self._text, self._started = text, time.monotonic()
        self._task = self._bar.add_task(text, total=None, detail="")

    def update(self, done: float, total: float, detail: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, detail=detail)

    def note(self, text: str) -> None:
        """A line above the bar that stays."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def line(self, text: str) -> None:
        """A line of the result while work goes on: above the bar, or to where the output goes."""
        if self._console.is_terminal and self._out.isatty():
            self.note(text)
        else:
            print(text, file=self._out, flush=True)

    def _close(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._text}: {seconds:.1f} s", highlight=False)


def show_outcome(outcome: FinishedRun) -> None:
    """The external test as a table, and where the page is."""
    console = Console()
    there = list(dict.fromkeys(r.model for r in outcome.rows if not is_single_site(r.model)))
    models = [*(m for m in FIRST if m in there), *(m for m in there if m not in FIRST)]
    for table in score_tables(outcome.rows, models):
        if table.title == TITLES["external"]:
            console.print(table)
    console.print(RESEARCH_USE_ONLY)
    console.print(f"Page: {outcome.page}", soft_wrap=True)


def score_tables(rows: Sequence[ScoreRow], models: Sequence[str]) -> Iterator[Table]:
    """The main figures over all sites, a table for each kind of test that has any."""
    measures = [("mask", "dice", "Dice"), *((m.id, "auc", f"AUC {m.title}") for m in MARKERS),
                ("markers", "auc", "AUC, mean of markers")]  # fmt: skip
    for role, title in TITLES.items():
        every = {
            (r.model, r.task, r.metric): r for r in rows if (r.role, r.site) == (role, ALL_SITES)
        }
        if not every:
            continue
        table = Table(title=title)
        table.add_column("")
        for model in models:
            table.add_column(model_title(model))
        for task, metric, name in measures:
            found = {m: every[m, task, metric] for m in models if (m, task, metric) in every}
            if count := max((r.n for r in found.values()), default=0):
                cells = [_cell(found[m]) if m in found else "" for m in models]
                table.add_row(f"{name} (n = {count})", *cells)
        yield table


def _cell(row: ScoreRow) -> str:
    if row.value is None:
        return f"n/a: {row.note}"
    if row.low is None or row.high is None:
        return f"{row.value:.2f}"
    return f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
