"""`gliofed prepare` with a terminal around it: a line a case as it ends, and what it came to."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import typer

import gliofed
from gliofed.cli.show import TerminalProgress
from gliofed.cli.verbs import plain_ends
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.preprocessing.quality_figure import format_measures
from gliofed.preprocessing.quality_index import ORDER
from gliofed.preprocessing.workers import processes_at_once
from gliofed.runtime.printable import printable


def prepare(
    path: Path,
    out: Path,
    study: Path | None,
    format_id: str,
    site: str,
    processes: int | None,
    figures: Path | None,
    json: Path | None,
) -> None:
    """`gliofed prepare`: status 0 where all are sound, 1 where some are not, 2 where none is."""
    started = time.monotonic()
    with plain_ends(after="the same command goes on from there", status=2):
        with TerminalProgress() as terminal:
            found = gliofed.prepare(
                path, out, study, format_id, site, processes or processes_at_once(), figures, json,
                terminal, lambda account: terminal.line(line(account)),
            )  # fmt: skip
        typer.echo(summary(found, time.monotonic() - started))
    if not found.usable:
        sys.exit(2)
    if found.usable < len(found.accounts):
        sys.exit(1)


def line(account: gliofed.CasePreparation) -> str:
    """One case in one line."""
    case = printable(str(account.case))
    if account.reasons:
        return f"{case}  {account.status}: {printable('; '.join(account.reasons))}"
    if account.status == "reused" or account.measures is None:
        return f"{case}  {account.status}"
    return f"{case}  {account.status}  {account.seconds:.0f} s  {format_measures(account.measures)}"


def summary(found: gliofed.DatasetPreparation, seconds: float) -> str:
    """The number of cases by status, and the page of figures."""
    counts = ", ".join(f"{found.count(status)} {status}" for status in reversed(ORDER))
    return (
        f"{len(found.accounts)} cases in {seconds:.0f} s: {counts}\n"
        f"Figures: {found.page}\n{RESEARCH_USE_ONLY}"
    )
