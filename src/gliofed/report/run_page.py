"""The page of a run between hospitals: one HTML file that asks nothing of any network."""

from __future__ import annotations

from pathlib import Path

from gliofed.io.files import write_text
from gliofed.report import run_tables
from gliofed.report.doubt import fit_lines
from gliofed.report.frame import fill
from gliofed.report.run_content import RunContent
from gliofed.report.tables import full_table
from gliofed.report.training import run_pictures
from gliofed.report.wording import told_of


def write_run_page(content: RunContent, path: Path) -> None:
    """Write the page to `path` in one step. Equal contents give equal bytes."""
    write_text(path, render_run(content))


def render_run(content: RunContent) -> str:
    """The page as one HTML text. It stays small however long the run: of rounds and of faults it
    lists the newest, and a curve of many rounds has no dots."""
    shown, faults = run_tables.SHOWN, run_tables.fault_lines(content.points)
    return fill(
        "run.html.j2",
        study=content.study,
        synthetic=content.synthetic,
        content=content,
        done=len(content.points),
        sites=run_tables.site_lines(content),
        losses=run_tables.loss_titles(content.points),
        rounds=run_tables.round_lines(content.points),
        more_rounds=max(0, len(content.points) - shown),
        faults=faults[:shown],
        more_faults=max(0, len(faults) - shown),
        failures=[(s, told_of(s, why)) for s, why in content.failures.items()],
        fits=fit_lines(content.fits),
        uncalibrated=[(s, told_of(s, why)) for s, why in content.uncalibrated.items()],
        curves=run_pictures(content.points),
        headline=run_tables.tested_headline(content.rows),
        table=full_table(content.rows),
        lacking=run_tables.lacking(content.rows),
    )
