"""Patients whom hospitals share: a table of counts, or JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from gliofed.experiments.patient_overlap import PatientOverlap, overlap_statement


def overlap_json(found: PatientOverlap, site: str | None) -> str:
    """The counts, and with `site` that hospital's own shared patients."""
    content: dict[str, object] = {
        "by": list(found.by),
        "patients": dict(found.patients),
        "whole_brains": dict(found.whole_brains),
        "pairs_found_by": dict(found.found_by),
        "shared": [{"sites": list(s), "patients": n} for s, n in sorted(found.counts.items())],
    }
    if site is not None:
        content["own"] = dict(found.shared.get(site, {}))
    return json.dumps(content, indent=1)


def show_overlap(found: PatientOverlap, site: str | None) -> None:
    """A table of counts by pair of hospitals, then with `site` its own shared patients."""
    console = Console()
    table = Table(title="Patients shared by two hospitals")
    sites = list(found.patients)
    table.add_column("")
    for number in range(2, len(sites) + 1):
        table.add_column(str(number), justify="right")  # names would not fit a terminal
    for number, site_name in enumerate(sites, start=1):
        counts = [
            str(found.counts.get((min(site_name, s), max(site_name, s)), 0)) for s in sites[number:]
        ]
        table.add_row(f"{number} {site_name}", *[""] * (number - 1), *counts)
    console.print(table)
    console.print(overlap_statement(found), soft_wrap=True, highlight=False)
    if site is not None:
        own = found.shared.get(site, {})
        console.print(
            f"{site}: {len(own)} of its patients are also at other hospitals", highlight=False
        )
        for patient, others in sorted(own.items()):
            console.print(f"  {patient}: at {others} other", soft_wrap=True, highlight=False)
