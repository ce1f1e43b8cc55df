"""`gliofed score`: any model's predictions, as a short table and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

import gliofed
from gliofed.cli.show import score_tables
from gliofed.cli.verbs import plain_ends
from gliofed.notice import RESEARCH_USE_ONLY


def score(
    files: Sequence[Path], out: Path, reference: str, bootstrap: int, study: Path | None
) -> None:
    """Score, write, then show the main figures of every model."""
    with plain_ends():
        rows = gliofed.score(files, out, reference, bootstrap, study)
        models = tuple(dict.fromkeys(row.model for row in rows))
        console = Console()
        for table in score_tables(rows, models):
            console.print(table)
        typer.echo(RESEARCH_USE_ONLY)
        typer.echo(f"All figures: {out / 'report.html'}, {out / 'scores.csv'}")
