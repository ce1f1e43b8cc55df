"""The findings of `gliofed check`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.validation.check import CheckResult
from gliofed.validation.codes import BY_ID, Severity

ROWS: Final = 10
"""Rows shown of one code; the files have all."""
NARROWEST: Final = 100
"""Minimum number of columns where the output is not a terminal."""
_STYLE: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def show_findings(result: CheckResult, written: Sequence[Path]) -> None:
    """One table of the findings, errors first, with the cure at the first row of each code.

    written: files with all findings.
    """
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    if result.findings:
        console.print(_table(result))
    counts = ", ".join(
        f"{n} {s.value}{'' if n == 1 else 's'}" for s in Severity for n in [result.count(s)]
    )
    console.print(
        f"{result.cases} cases, {result.tables} tables in {result.seconds:.1f} s: {counts}",
        highlight=False,
    )
    console.print(RESEARCH_USE_ONLY)
    for file in written:
        console.print(f"wrote {file}", soft_wrap=True, markup=False, highlight=False)


def _table(result: CheckResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("severity", no_wrap=True)
    table.add_column("code, case", overflow="fold")
    table.add_column("file", overflow="fold")
    table.add_column("finding, cure", ratio=1)
    for code, group in groupby(result.findings, key=lambda f: f.code):
        kind, rows = BY_ID[code], list(group)
        severity = Text(kind.severity.value, style=_STYLE[kind.severity])
        cure = Text(f"{kind.title}. Cure: {kind.cure}.")
        table.add_row(severity, Text(f"{code} ({len(rows)})", style="bold"), Text(), cure)
        for f in rows[:ROWS]:
            table.add_row(Text(), Text(f"  {f.case}"), Text(Path(f.file).name), Text(f.text))
        if len(rows) > ROWS:
            more = Text(f"  and {len(rows) - ROWS} more", style="dim")
            table.add_row(Text(), more, Text(), Text("--json and --sheet have all", style="dim"))
    return table
