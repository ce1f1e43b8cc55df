"""The score table from sites' sums: every figure with its n, interval, and method.

Pairs of cases are compared within one site only, and the sites' pairs are added (van Elteren
1960, Bulletin of the International Statistical Institute 37:351): a hospital with more mutants
and, say, brighter scans cannot raise this AUC. Its id is `auc_within_site`; `auc` is of all pairs.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.by_site_sums.sums import MASK, MarkerSums, ScoreSums
from gliofed.evaluation.intervals.analytic import (
    auc_from_sums,
    auc_interval,
    balanced_accuracy_from_sums,
    mean_interval,
)
from gliofed.evaluation.intervals.bootstrap import Interval
from gliofed.evaluation.metrics.definitions import AUC_WITHIN_SITE
from gliofed.evaluation.results import Role, ScoreGroup, ScoreRow
from gliofed.markers import BY_ID, MARKERS

MODEL: Final = "federated"
METRICS: Final = (AUC_WITHIN_SITE, "balanced_accuracy", "brier")
"""Of a marker."""
ROLES: Final[tuple[Role, ...]] = ("external", "holdout")
PAIRS_WITHIN_SITE: Final = "pairs within one site (van Elteren 1960)"
SUPPRESSED: Final = "hidden: fewer than"
"""In the note of a figure that a site omits."""


@dataclass(frozen=True)
class _Figure:
    """One metric of one task, from sums. n: cases that enter it."""

    task: str
    metric: str
    n: int
    value: float | None
    interval: Interval


def score_table_from_sums(
    sums: Mapping[str, Mapping[Role, ScoreSums]], missing: Collection[str] = ()
) -> tuple[ScoreRow, ...]:
    """Dice, AUC, balanced accuracy and Brier score over all sites, then for each.

    sums: site to its sums by role, as received. missing: sites that sent no sums; the notes of the
    rows over all sites name them. The order of the sites does not matter. There are no rows for a
    role that no site has.
    """
    absent = "; ".join(f"without {site} (no usable statistics)" for site in sorted(missing))
    rows: list[ScoreRow] = []
    for role in ROLES:
        by_site = {site: sums[site][role] for site in sorted(sums) if role in sums[site]}
        if not by_site:
            continue
        total = functools.reduce(lambda a, b: a + b, by_site.values())
        rows += _rows(ScoreGroup(MODEL, role, ALL_SITES), total, by_site, absent)
        for site, site_sums in by_site.items():
            rows += _rows(ScoreGroup(MODEL, role, site), site_sums, {site: site_sums})
    return tuple(rows)


def _rows(
    group: ScoreGroup, sums: ScoreSums, parts: Mapping[str, ScoreSums], absent: str = ""
) -> list[ScoreRow]:
    """parts: the sums of each site that `sums` are made of."""
    rows = []
    for figure in (_dice(sums), *_marker_figures(sums, group.site == ALL_SITES)):
        omitted = [_omission_note(figure.task, *part, group.site) for part in parts.items()]
        patients = _patients_note(sums, figure.value)
        rows.append(
            ScoreRow(
                group.model,
                group.role,
                group.site,
                figure.task,
                figure.metric,
                figure.n,
                figure.value,
                figure.interval.low,
                figure.interval.high,
                seeds=1,
                note="; ".join(filter(None, (absent, *omitted, figure.interval.note, patients))),
                method=figure.interval.method,
            )
        )
    return rows


def _dice(sums: ScoreSums) -> _Figure:
    dice = sums.mask
    interval = mean_interval(dice, 1.0)
    if not dice.n and MASK not in sums.omitted:
        interval = Interval(None, None, "no case with an expert mask")
    return _Figure(MASK, "dice", dice.n, dice.sum / dice.n if dice.n else None, interval)


def _marker_figures(sums: ScoreSums, over_sites: bool) -> list[_Figure]:
    figures: list[_Figure] = []
    for marker in MARKERS:
        marker_sums = sums.markers.get(marker.id)
        if marker_sums is None:
            figures += [_Figure(marker.id, m, 0, None, Interval(None, None)) for m in METRICS]
            continue
        n = sum(marker_sums.classes)
        no_interval = Interval(None, None, _missing_class_note(marker.id, marker_sums.classes))
        recall, recall_interval = balanced_accuracy_from_sums(marker_sums)
        brier_interval = mean_interval(marker_sums.brier, 1.0 if len(marker.classes) == 2 else 2.0)
        figures += [
            _auc_figure(marker.id, marker_sums, no_interval, over_sites),
            _Figure(
                marker.id,
                "balanced_accuracy",
                n,
                recall,
                no_interval if recall is None else recall_interval,
            ),
            _Figure(
                marker.id,
                "brier",
                n,
                marker_sums.brier.sum / n if n else None,
                brier_interval if n else no_interval,
            ),
        ]
    return figures


def _auc_figure(marker: str, sums: MarkerSums, no_interval: Interval, over_sites: bool) -> _Figure:
    area, interval = auc_from_sums(sums.auc), auc_interval(sums.auc)
    if area is None:
        no_pairs = Interval(None, None, "no site has two classes")
        interval = no_interval if no_interval.note else no_pairs
    elif over_sites:
        interval = replace(interval, note=PAIRS_WITHIN_SITE)
    return _Figure(marker, AUC_WITHIN_SITE, sums.auc.cases or sum(sums.classes), area, interval)


def _missing_class_note(marker: str, classes: Sequence[int]) -> str:
    present = [c for c, n in zip(BY_ID[marker].classes, classes, strict=True) if n]
    if not present:
        return "no case with a known label"
    return f"only {present[0]} present" if len(present) == 1 else ""


def _omission_note(task: str, name: str, sums: ScoreSums, site: str) -> str:
    """Why a site omits a task; empty where it does not."""
    if task not in sums.omitted:
        return ""
    if sums.omitted[task] == "not finite":
        why = "a probability is not finite"
    else:
        kind = "" if not sums.cases else " with an expert mask" if task == MASK else " of a class"
        why = f"{SUPPRESSED} {sums.min_count} cases{kind}"
    return f"without {name} ({why})" if site == ALL_SITES else f"{why} at this site"


def _patients_note(sums: ScoreSums, value: float | None) -> str:
    if value is None or sums.patients == sums.cases:
        return ""
    return f"{sums.cases} cases of {sums.patients} patients, taken as if independent"
