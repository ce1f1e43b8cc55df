"""What a hospital sees of its part in a federation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

from gliofed.notice import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from gliofed import SiteProgress
    from gliofed.evaluation.results import ScoreRow


def show_progress(progress: SiteProgress, scores: Sequence[ScoreRow]) -> None:
    """Print a hospital's part in its newest run, with its own scores of the finished model."""
    typer.echo(progress.line)
    if progress.losses:
        losses = ", ".join(f"{task} {loss:.3f}" for task, loss in progress.losses.items())
        typer.echo(f"training losses: {losses}")
    if progress.failure:
        typer.echo(f"the last failure here: {progress.failure}")
    if scores:
        show_own_scores(scores)
    typer.echo(RESEARCH_USE_ONLY)


def show_own_scores(rows: Sequence[ScoreRow]) -> None:
    """Print the scores of the finished model on this hospital's own test cases."""
    if not rows:
        typer.echo("no scores: this hospital has no test cases")
        return
    Console().print(own_scores_table(rows))


def own_scores_table(rows: Sequence[ScoreRow]) -> Table:
    """The scores that have a value, one line each."""
    table = Table(title="Test on this hospital's own cases (95 % interval)", title_justify="left")
    for name in ("role", "task", "metric", "n", "value"):
        table.add_column(name)
    for row in (r for r in rows if r.value is not None):
        interval = "" if row.low is None else f" ({row.low:.3f} to {row.high:.3f})"
        table.add_row(row.role, row.task, row.metric, str(row.n), f"{row.value:.3f}{interval}")
    return table
