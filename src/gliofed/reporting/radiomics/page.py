"""Tables of a study of hospitals, as one HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.html.document import render_page
from gliofed.runtime.files import write_text


@dataclass(frozen=True)
class ReportTable:
    """One table. notes: sentences below it. Every row has a cell a column."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def write_radiomics_page(title: str, tables: Sequence[ReportTable], path: Path) -> None:
    """Write the page to `path` in one step. Equal contents give equal bytes."""
    page = render_page(
        "reporting/radiomics/page.html.j2", study=title, synthetic=False, tables=tables
    )
    write_text(path, page)


def markdown(title: str, tables: Sequence[ReportTable]) -> str:
    """The same tables as Markdown."""
    lines = [f"# {title}", "", RESEARCH_USE_ONLY]
    for table in tables:
        lines += ["", f"## {table.title}", ""]
        lines += [_line(table.columns), "|" + "---|" * len(table.columns)]
        lines += map(_line, table.rows)
        if table.notes:
            lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
