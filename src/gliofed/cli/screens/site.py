"""What a hospital sees of its part in a federation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from gliofed.evaluation.results import ScoreRow


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
