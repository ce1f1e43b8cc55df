"""The main figures of a privacy audit."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gliofed.evaluation.privacy.rows import JOINT
from gliofed.experiments.privacy.audit import PrivacyAudit
from gliofed.reporting.study.privacy import ATTACKS, MAIN, METRICS


def show_audit(audit: PrivacyAudit) -> None:
    """One line a kind of update or model, with the value that chance would give."""
    table = Table("attack", "network", "seen", "defence", "figure", "value", "by chance")
    for r in audit.rows:
        if r.task == JOINT and r.metric in MAIN and r.value is not None:
            chance = "" if r.chance is None else f"{r.chance:.2f}"
            attack = ATTACKS[r.attack].partition(" (")[0]
            figure = METRICS[r.metric]
            table.add_row(attack, r.model, r.seen, r.defence, figure, f"{r.value:.2f}", chance)
    Console().print(table)
