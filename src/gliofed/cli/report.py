"""`gliofed report`: the pages of cases that were answered."""

from __future__ import annotations

from pathlib import Path

import typer

import gliofed
from gliofed.cli.show import TerminalProgress
from gliofed.cli.verbs import plain_ends
from gliofed.notice import RESEARCH_USE_ONLY


def report(answers: Path, store: Path | None) -> None:
    """One page a case, in its folder."""
    with plain_ends(after="pages that are written stay"):
        with TerminalProgress() as terminal:
            pages = gliofed.report(answers, store, terminal)
        for page in pages:
            typer.echo(page)
        typer.echo(RESEARCH_USE_ONLY)
