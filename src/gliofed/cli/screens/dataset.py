"""How a data set was read: rows kept and dropped, and the value of each cell."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gliofed.data.audit import EXAMPLES, DatasetReading
from gliofed.data.formats.registry import format_of
from gliofed.markers import MARKERS
from gliofed.types import SEQUENCES, Unknown


def show_reading(reading: DatasetReading, format_id: str) -> None:
    """Rows found, kept and dropped; the value of every spelling; a summary of the cases."""
    form, audit = format_of(format_id), reading.audit
    console = Console(highlight=False)
    console.print(f"{form.title}: {audit.root}", soft_wrap=True, markup=False)
    console.print(f"found {audit.found}, kept {audit.kept}, dropped {len(audit.dropped)}")
    if audit.dropped:
        console.print(_dropped(reading))
    if audit.mapped:
        console.print(_mapped(reading))
    console.print(_kept(reading))
    for note in (*audit.notes, *([f"Before use: {form.caution}."] if form.caution else [])):
        console.print(note, soft_wrap=True, markup=False)
    console.print(f"Licence: {form.licence}. Cite {form.citation}.", soft_wrap=True, markup=False)


def _dropped(reading: DatasetReading) -> Table:
    table = Table("rows", "why", "which", title="Dropped")
    for reason, rows in reading.audit.reasons():
        more = ", ..." if len(rows) > EXAMPLES else ""
        table.add_row(str(len(rows)), escape(reason), escape(", ".join(rows[:EXAMPLES]) + more))
    return table


def _mapped(reading: DatasetReading) -> Table:
    table = Table(
        "column", "cell", "field", "read as", "rows", title="Every cell, dropped rows too"
    )
    for item in reading.audit.mapped:
        cells = (item.column, item.raw or "(empty)", item.marker_or_field, item.value)
        table.add_row(*map(escape, cells), str(item.count))
    return table


def _kept(reading: DatasetReading) -> Table:
    """Counts of sequences, masks and labels of the kept cases, one column a hospital."""
    cases = reading.cases
    sites = sorted({c.site for c in cases})
    table = Table("cases with", *map(escape, sites), title="Kept")
    rows: list[tuple[str, list[bool]]] = [("anything", [True] * len(cases))]
    rows += [(s.value, [s in c.images for c in cases]) for s in SEQUENCES]
    rows.append(("a mask", [c.mask is not None for c in cases]))
    rows += [
        (f"{m.title} known", [not isinstance(c.labels[m.id], Unknown) for c in cases])
        for m in MARKERS
    ]
    for name, has in rows:
        counts = Counter(c.site for c, yes in zip(cases, has, strict=True) if yes)
        table.add_row(name, *(str(counts[site]) for site in sites))
    return table
