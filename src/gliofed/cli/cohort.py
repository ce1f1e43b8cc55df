"""`gliofed cohort`: the cohort table, for a terminal, as CSV or as JSON."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

import gliofed
from gliofed.cli.verbs import plain_ends
from gliofed.experiments.cohort import cohort_csv, cohort_json
from gliofed.federated.cohort.table import CohortTable


def cohort(study: Path, form: str) -> None:
    """Count, then print in the form asked for."""
    with plain_ends():
        table = gliofed.cohort(study)
        if form == "table":
            _show(table)
        else:
            typer.echo(cohort_csv(table) if form == "csv" else cohort_json(table), nl=False)


def _show(table: CohortTable) -> None:
    console = Console()
    for number, (site, cases) in enumerate(table.sites.items(), start=1):
        console.print(f"{number}: {site}, {cases} cases", highlight=False)
    shown = Table(title="Cases by hospital")
    heads = [*map(str, range(1, len(table.sites) + 1)), "all"]  # names would not fit a terminal
    for head in ("", "", *heads):
        shown.add_column(head, justify="right" if head else "left")
    counts = {(r.variable, r.category, r.site): r.count for r in table.rows}
    before = ""
    for variable, category in dict.fromkeys((r.variable, r.category) for r in table.rows):
        found = [counts[variable, category, s] for s in (*table.sites, None)]
        if any(found) or None in found:
            cells = ["*" if n is None else str(n) for n in found]
            shown.add_row(variable if variable != before else "", category, *cells)
            before = variable
    console.print(shown)
    if table.left_out:
        console.print(
            f"Hospitals of 1 to 10 cases left out, of the totals too: {table.left_out}.",
            highlight=False,
        )
    console.print(
        "*: hidden, counts from 1 to 10, and others without which they could be reckoned.",
        highlight=False,
    )
