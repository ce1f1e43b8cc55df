"""The cohort table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gliofed.federated.cohort.table import CohortTable


def show_cohort(table: CohortTable) -> None:
    """Counts by variable and category, one column a hospital; suppressed counts as a star."""
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
        numbers = [counts[variable, category, s] for s in (*table.sites, None)]
        if any(numbers) or None in numbers:
            cells = ["*" if n is None else str(n) for n in numbers]
            shown.add_row(variable if variable != before else "", category, *cells)
            before = variable
    console.print(shown)
    if table.left_out:
        console.print(
            f"Hospitals with 1 to 10 cases, excluded also from the totals: {table.left_out}.",
            highlight=False,
        )
    console.print(
        "*: suppressed, counts from 1 to 10, and counts from which these could be derived.",
        highlight=False,
    )
