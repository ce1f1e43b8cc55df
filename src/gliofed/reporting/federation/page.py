"""Renders the page of a federation between hospitals as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from gliofed.reporting.federation import tables
from gliofed.reporting.federation.content import FederationContent
from gliofed.reporting.html.document import render_page
from gliofed.reporting.html.formatting import without_site_prefix
from gliofed.reporting.plots.training_curves import run_pictures
from gliofed.reporting.study.calibration_tables import scaling_lines
from gliofed.reporting.study.tables import full_table
from gliofed.runtime.files import write_text


def write_federation_page(content: FederationContent, path: Path) -> None:
    """Write the page to `path` in one step. Equal contents give equal bytes."""
    write_text(path, render_federation_page(content))


def render_federation_page(content: FederationContent) -> str:
    """The page as one HTML text. Its size is limited in long runs: it lists the newest rounds and
    faults, and a curve of many rounds has no dots."""
    shown, faults = tables.SHOWN, tables.fault_lines(content.points)
    return render_page(
        f"reporting/federation/{'validation' if content.validates else 'page'}.html.j2",
        study=content.study,
        synthetic=content.synthetic,
        content=content,
        done=content.points[-1].round + 1 if content.points else 0,
        sites=tables.site_lines(content),
        losses=tables.loss_titles(content.points),
        rounds=tables.round_lines(content.points),
        more_rounds=sum(p.rounds for p in content.points[:-shown]),
        faults=faults[:shown],
        more_faults=max(0, len(faults) - shown),
        failures=[(s, without_site_prefix(s, why)) for s, why in content.failures.items()],
        fits=scaling_lines(content.fits),
        left_out=list(content.left_out.items()),
        warnings=content.warnings,
        uncalibrated=[(s, without_site_prefix(s, why)) for s, why in content.uncalibrated.items()],
        curves=run_pictures(content.points),
        headline=tables.tested_headline(content.rows),
        table=full_table(content.rows),
        lacking=tables.omitted_metrics(content.rows),
    )
