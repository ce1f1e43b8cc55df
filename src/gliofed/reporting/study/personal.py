"""The table of personal models: each hospital's held-out patients by the global and its own one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.results import ScoreRow
from gliofed.reporting.html.formatting import difference, estimate, missing_reason, site_title
from gliofed.reporting.study.tables import (
    FEW_CASES,
    GAP_DIGITS,
    HEADLINE_DIGITS,
    MEASURES,
)
from gliofed.study import PERSONAL


@dataclass(frozen=True)
class PersonalLine:
    """One measure at one hospital, or at all. reference, personal: with their intervals.
    difference: personal minus reference on the same patients."""

    site: str
    measure: str
    n: int
    reference: str
    personal: str
    difference: str
    note: str


def personal_lines(rows: Sequence[ScoreRow], reference: str) -> tuple[PersonalLine, ...]:
    """All hospitals together first, then each by name; empty without personal models.

    reference: the model that personal ones began with.
    """
    held_out = {
        (r.model, r.site, r.task, r.metric): r
        for r in rows
        if r.role == "holdout" and r.model in (PERSONAL, reference)
    }
    sites = sorted({site for model, site, _, _ in held_out if model == PERSONAL} - {ALL_SITES})
    lines = []
    for site in (ALL_SITES, *sites):
        for measure in MEASURES:
            key = (site, measure.task, measure.metric)
            own, base = held_out.get((PERSONAL, *key)), held_out.get((reference, *key))
            if own is not None and base is not None:
                lines.append(_line(measure.title, own, base))
    return tuple(lines)


def _line(title: str, own: ScoreRow, base: ScoreRow) -> PersonalLine:
    compared = own.difference is not None or own.value is None or base.value is None
    few = f"fewer than {FEW_CASES} cases: too few for any claim" if own.n < FEW_CASES else ""
    reasons = ("" if compared else "not the same cases", missing_reason(own), few)
    return PersonalLine(
        site_title(own.site),
        title,
        own.n,
        estimate(base, HEADLINE_DIGITS),
        estimate(own, HEADLINE_DIGITS),
        difference(own, GAP_DIGITS),
        "; ".join(filter(None, reasons)),
    )
