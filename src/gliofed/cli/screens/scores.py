"""The main scores of a run, or of any table of predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
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


def show_finished_run(run: FinishedRun) -> None:
    """The external test as a table, and where the page is."""
    console = Console()
    external = (r.model for r in run.rows if r.role == "external")
    tested = list(dict.fromkeys(m for m in external if not is_single_site(m)))
    models = [*(m for m in FIRST if m in tested), *(m for m in tested if m not in FIRST)]
    for table in score_tables(run.rows, models):
        if table.title == TITLES["external"]:
            console.print(table)
    console.print(RESEARCH_USE_ONLY)
    console.print(f"Page: {run.page}", soft_wrap=True)


def show_scores(rows: Sequence[ScoreRow]) -> None:
    """A table for each kind of test, a column a model."""
    console = Console()
    for table in score_tables(rows, tuple(dict.fromkeys(row.model for row in rows))):
        console.print(table)


def score_tables(rows: Sequence[ScoreRow], models: Sequence[str]) -> Iterator[Table]:
    """The main figures over all sites, a table for each kind of test that has any."""
    measures = [
        ("mask", "dice", "Dice"),
        *((m.id, "auc", f"AUC {m.title}") for m in MARKERS),
        ("markers", "auc_mean", "AUC, mean of markers"),
    ]
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
