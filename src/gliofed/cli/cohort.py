"""`gliofed cohort`: the cohort table, for a terminal, as CSV or as JSON."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from gliofed import api
from gliofed.cli.verbs import plain_ends
from gliofed.experiment.cohort import HIDDEN, cohort_csv, cohort_json
from gliofed.fed.cohort import CohortTable


def cohort(study: Path, form: str) -> None:
    """Count, then print in the form asked for."""
    with plain_ends():
        table = api.cohort(study)
        if form == "table":
            _show(table)
        else:
            typer.echo(cohort_csv(table) if form == "csv" else cohort_json(table), nl=False)


def _show(table: CohortTable) -> None:
    console = Console()
    shown = Table(title="Cases by hospital")
    shown.add_column("")
    shown.add_column("")
    for site, cases in table.sites.items():
        shown.add_column(f"{site}\n{cases}", justify="right")
    shown.add_column(f"all\n{sum(table.sites.values())}", justify="right")
    counts = {(r.variable, r.category, r.site): r.count for r in table.rows}
    before = ""
    for variable, category in dict.fromkeys((r.variable, r.category) for r in table.rows):
        found = [counts[variable, category, s] for s in (*table.sites, None)]
        if any(found) or None in found:
            cells = [HIDDEN if n is None else str(n) for n in found]
            shown.add_row(variable if variable != before else "", category, *cells)
            before = variable
    console.print(shown)
    if table.left_out:
        console.print(
            f"{table.left_out} hospitals of 1 to 10 cases are left out, of the totals too.",
            highlight=False,
        )
    console.print(
        "Hidden: counts from 1 to 10, and others without which they could be reckoned.",
        highlight=False,
    )
