"""The score table from sites' sums: every figure with its n, interval, and how that was made.

Pairs of cases are compared within one site only, and the sites' pairs are added (van Elteren
1960, Bulletin of the International Statistical Institute 37:351): a hospital with more mutants
and, say, brighter scans cannot raise the AUC over all sites.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.by_site_sums.sums import MASK, ScoreSums
from gliofed.evaluation.intervals.analytic import (
    auc_from_sums,
    auc_interval,
    balanced_accuracy_from_sums,
    mean_interval,
)
from gliofed.evaluation.intervals.bootstrap import Interval
from gliofed.evaluation.metrics.definitions import AUC_WITHIN_SITE
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.markers import BY_ID, MARKERS

MODEL: Final = "federated"
METRICS: Final = (AUC_WITHIN_SITE, "balanced_accuracy", "brier")
"""Of a marker."""
ROLES: Final[tuple[Role, ...]] = ("external", "holdout")
PAIRS_WITHIN_SITE: Final = "pairs within one site (van Elteren 1960)"
SUPPRESSED: Final = "hidden: fewer than"
"""In the note of a figure that a site does not show."""

Named = tuple[str, str, int, float | None, Interval]
"""Task, metric, n, value, interval."""


def score_table_from_sums(
    sums: Mapping[str, Mapping[Role, ScoreSums]], missing: Collection[str] = ()
) -> tuple[ScoreRow, ...]:
    """Dice, AUC, balanced accuracy and Brier score over all sites, then for each.

    sums: site to its sums by role, as it sent them. missing: sites that were asked and are not
    among them; the rows over all sites say so. Equal whatever the order of the sites. There are
    no rows for a role that no site has.
    """
    absent = "; ".join(f"without {site} (no answer that could be used)" for site in sorted(missing))
    out: list[ScoreRow] = []
    for role in ROLES:
        own = {site: sums[site][role] for site in sorted(sums) if role in sums[site]}
        if not own:
            continue
        whole = functools.reduce(lambda a, b: a + b, own.values())
        out += _rows(role, ALL_SITES, whole, own, absent)
        for site, one in own.items():
            out += _rows(role, site, one, {site: one})
    return tuple(out)


def _rows(
    role: Role, site: str, sums: ScoreSums, parts: Mapping[str, ScoreSums], absent: str = ""
) -> list[ScoreRow]:
    out = []
    for task, metric, n, value, found in (*_mask(sums), *_markers(sums, site == ALL_SITES)):
        left = [_left_out(task, name, one, site) for name, one in parts.items()]
        note = "; ".join(filter(None, (absent, *left, found.note, _patients(sums, value))))
        out.append(
            ScoreRow(
                MODEL, role, site, task, metric, n, value, found.low, found.high, 1,
                note=note, method=found.method,
            )
        )  # fmt: skip
    return out


def _mask(sums: ScoreSums) -> list[Named]:
    dice = sums.mask
    found = mean_interval(dice, 1.0)
    if not dice.n and MASK not in sums.omitted:
        found = Interval(None, None, "no case with an expert mask")
    return [(MASK, "dice", dice.n, dice.sum / dice.n if dice.n else None, found)]


def _markers(sums: ScoreSums, over_sites: bool) -> list[Named]:
    out: list[Named] = []
    for marker in MARKERS:
        own = sums.markers.get(marker.id)
        if own is None:
            nothing = Interval(None, None)
            out += [(marker.id, m, 0, None, nothing) for m in METRICS]
            continue
        n = sum(own.classes)
        lacking = Interval(None, None, _lacking(marker.id, own.classes))
        area, (recall, around) = auc_from_sums(own.auc), balanced_accuracy_from_sums(own)
        between = auc_interval(own.auc)
        if area is None:
            between = lacking if lacking.note else Interval(None, None, "no site has two classes")
        elif over_sites:
            between = replace(between, note=PAIRS_WITHIN_SITE)
        most = 1.0 if len(marker.classes) == 2 else 2.0
        brier = own.brier.sum / n if n else None
        out += [
            (marker.id, AUC_WITHIN_SITE, own.auc.cases or n, area, between),
            (marker.id, "balanced_accuracy", n, recall, lacking if recall is None else around),
            (marker.id, "brier", n, brier, mean_interval(own.brier, most) if n else lacking),
        ]  # fmt: skip
    return out


def _lacking(marker: str, classes: Sequence[int]) -> str:
    present = [c for c, n in zip(BY_ID[marker].classes, classes, strict=True) if n]
    if not present:
        return "no case with a known label"
    return f"only {present[0]} present" if len(present) == 1 else ""


def _left_out(task: str, name: str, sums: ScoreSums, site: str) -> str:
    """What a site does not show of a task, in words; empty where it shows it."""
    if task not in sums.omitted:
        return ""
    if sums.omitted[task] == "not finite":
        why = "a probability is not finite"
    else:
        kind = "" if not sums.cases else " with an expert mask" if task == MASK else " of a class"
        why = f"{SUPPRESSED} {sums.min_count} cases{kind}"
    return f"without {name} ({why})" if site == ALL_SITES else f"{why} at this site"


def _patients(sums: ScoreSums, value: float | None) -> str:
    if value is None or sums.patients == sums.cases:
        return ""
    return f"{sums.cases} cases of {sums.patients} patients, taken as if independent"
