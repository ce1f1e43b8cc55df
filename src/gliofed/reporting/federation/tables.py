"""The tables of the page of a federation, as text; rounds are counted from 1."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.by_site_sums.score_table import MODEL
from gliofed.evaluation.metrics.definitions import AUC_WITHIN_SITE
from gliofed.evaluation.results import ScoreRow
from gliofed.markers import MARKERS
from gliofed.reporting.federation.content import FederationContent, SiteStatus
from gliofed.reporting.html.formatting import (
    count,
    is_hidden,
    number,
    round_ranges,
    task_title,
    without_site_prefix,
)
from gliofed.reporting.plots.training_curves import tasks_of
from gliofed.reporting.study.tables import (
    HeadlineCell,
    HeadlineMeasure,
    external_rows,
    headline_cell,
)
from gliofed.types import RoundPoint

SHOWN: Final = 50
"""The newest rounds, and the newest faults, that a page has."""


@dataclass(frozen=True)
class SiteLine:
    """One site, with its rounds so far; empty for a site that only tests."""

    site: str
    part: str
    standing: str
    answered: str
    refused: str
    seconds: str
    last: str


@dataclass(frozen=True)
class RoundLine:
    """One round. losses: in the order of the table's tasks."""

    round: str
    seconds: str
    sent: str
    losses: tuple[str, ...]
    dice: str
    without: str


@dataclass(frozen=True)
class RefusalLine:
    """One reason why a site's update was not merged, and the rounds in which it was not."""

    rounds: str
    site: str
    why: str


def site_lines(content: FederationContent) -> tuple[SiteLine, ...]:
    """One line a site, in the order of the study."""
    return tuple(_site_line(s, content.points) for s in content.stations)


def _site_line(station: SiteStatus, points: Sequence[RoundPoint]) -> SiteLine:
    took = [p.answered[station.site] for p in points if station.site in p.answered]
    last = [p.round + 1 for p in points if station.site in p.answered]
    merged = sum(p.merged.get(station.site, 0) for p in points)
    missed = sum(
        p.rounds - p.merged.get(station.site, 0) for p in points if station.site in p.refused
    )
    return SiteLine(
        site=station.site,
        part="trains" if station.trains else "only tests",
        standing=station.standing,
        answered=str(merged) if station.trains else "",
        refused=str(missed) if station.trains else "",
        seconds=number(statistics.median(took), 1) if took else "",
        last=str(last[-1]) if last else "",
    )


def loss_titles(points: Sequence[RoundPoint]) -> tuple[str, ...]:
    """The headings of the losses in `round_lines`."""
    return tuple(task_title(t) for t in tasks_of(points))


def round_lines(points: Sequence[RoundPoint]) -> tuple[RoundLine, ...]:
    """The newest rounds, newest first."""
    tasks = tasks_of(points)
    return tuple(
        RoundLine(
            round=str(p.round + 1),
            seconds=number(p.seconds / p.rounds, 1),
            sent=number(p.bytes_up / p.rounds / 1e6, 1),
            losses=tuple(number(p.losses[t], 3) if t in p.losses else "" for t in tasks),
            dice="" if p.dice is None else number(p.dice, 3),
            without=", ".join(p.refused),
        )
        for p in reversed(points[-SHOWN:])
    )


def fault_lines(points: Sequence[RoundPoint]) -> tuple[RefusalLine, ...]:
    """Every reason of every site, the newest first; equal ones are one line."""
    rounds_by_refusal: dict[tuple[str, str], list[int]] = {}
    for point in points:
        for site, why in point.refused.items():
            rounds_by_refusal.setdefault((site, why), []).extend(point.numbers)
    newest = sorted(rounds_by_refusal.items(), key=lambda item: item[1][-1], reverse=True)
    return tuple(
        RefusalLine(round_ranges(rounds), site, without_site_prefix(site, why))
        for (site, why), rounds in newest
    )


FEDERATION_MEASURES: Final = (
    HeadlineMeasure("Dice of the segmentation, mean", "mask", "dice"),
    *(HeadlineMeasure(f"{m.title}: AUC", m.id, AUC_WITHIN_SITE) for m in MARKERS),
)
"""AUC from sums of sites: pairs of cases of different sites cannot be compared."""


def tested_headline(rows: Sequence[ScoreRow]) -> tuple[tuple[str, HeadlineCell], ...]:
    """The external sites' figures by their titles; empty without any."""
    external = external_rows(rows)
    return tuple(
        (m.title, headline_cell(MODEL, external[MODEL, m.task, m.metric]))
        for m in FEDERATION_MEASURES
        if (MODEL, m.task, m.metric) in external
    )


def omitted_metrics(rows: Sequence[ScoreRow]) -> str:
    """The number of figures without a value and the reason, as one sentence; empty if all have
    one."""
    none = [r for r in rows if r.value is None]
    hidden = sum(is_hidden(r) for r in none)
    parts = []
    if hidden:
        parts.append(f"{count(hidden, 'figure')} suppressed by sites because of few cases")
    if len(none) > hidden:
        parts.append(f"{count(len(none) - hidden, 'figure')} that cannot be computed")
    return (
        f"Without a value: {'; '.join(parts)}. The column Note gives the reason." if parts else ""
    )
