"""The score table from sites' sums: every figure with its n, interval, and how that was made.

Pairs of cases are compared within one site only, and the sites' pairs are added (van Elteren
1960, Bulletin of the International Statistical Institute 37:351): a hospital with more mutants
and, say, brighter scans cannot raise the AUC over all sites.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtrit

from gliofed.markers import BY_ID, MARKERS
from gliofed.score.intervals import Interval
from gliofed.score.results import Role, ScoreRow
from gliofed.score.sums import MASK, Areas, MarkerSums, Moments, ScoreSums
from gliofed.score.table import ALL_SITES

MODEL: Final = "federated"
ROLES: Final[tuple[Role, ...]] = ("external", "holdout")
NORMAL: Final = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""
BY_T: Final = "interval: Student's t, of the mean"
BY_DELONG: Final = "interval: DeLong 1988, on the logit scale"
BY_SCORE: Final = "interval: Newcombe 2006, method 5; the pairs won have no spread"
BY_WILSON: Final = "interval: Wilson's of each class, combined (Zou and Donner 2008)"
SAME_SITE: Final = "pairs within one site (van Elteren 1960)"
HIDDEN: Final = "hidden: fewer than"
"""In the note of a figure that a site does not show."""
_LEAST_VARIANCE: Final = 1e-12

Named = tuple[str, str, int, float | None, Interval]
"""Task, metric, n, value, interval; the interval's note tells how it was made."""


def rows(
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


def mean_interval(values: Moments, most: float) -> Interval:
    """Student's t interval of a mean of values from 0 to `most`, cut to that range."""
    if values.n < 2:
        return Interval(None, None, "no interval: one case" if values.n else "")
    centre = values.sum / values.n
    variance = (values.squares - values.sum * centre) / (values.n - 1)
    if variance <= _LEAST_VARIANCE:
        return Interval(None, None, "no interval: the cases do not differ")
    half = float(stdtrit(values.n - 1, 0.975)) * math.sqrt(variance / values.n)
    return Interval(max(0.0, centre - half), min(most, centre + half), BY_T)


def auc_of(areas: Areas) -> float | None:
    """Pairs won of all pairs; with more classes, the mean over those that have any.

    Of one site, exactly `score.discrimination.auc`. None without a pair.
    """
    pairs, won = np.array(areas.pairs), np.array(areas.won)
    found = pairs > 0
    if not found.any():
        return None
    shares = np.zeros(len(pairs))
    np.divide(won, pairs, out=shares, where=found)
    return float(shares.sum() / found.sum())


def auc_interval(areas: Areas) -> Interval:
    """A 95 % interval of `auc_of`, on the logit scale, from DeLong's variance.

    The variance of the pairs won adds up over sites, which are independent. Where it is 0, or all
    pairs are won or all lost, it says nothing, and the interval is Newcombe's (2006, Statistics in
    Medicine 25:559, method 5): all areas that lie within 1.96 standard errors, by the variance
    that such an area has in Hanley and McNeil's model.
    """
    area = auc_of(areas)
    if area is None:
        return Interval(None, None)
    pairs = np.array(areas.pairs, float)
    found = pairs > 0
    share = 1 / (found.sum() * pairs[found])
    covariance = np.array(areas.covariance)[np.ix_(found, found)]
    variance = float(share @ covariance @ share)
    if variance <= _LEAST_VARIANCE or not 0 < area < 1:
        return _by_score(area, pairs[found], np.array(areas.reach)[found])
    half = NORMAL * math.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high), BY_DELONG)


def _by_score(
    area: float, pairs: np.ndarray[tuple[int], np.dtype[np.float64]],
    reach: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Interval:  # fmt: skip
    """The score interval; of a mean of comparisons, the error is taken as the mean of theirs,
    which it cannot exceed."""

    def beyond(other: float) -> float:
        model = (1 - other) / (2 - other) + other / (1 + other)
        errors = np.sqrt(other * (1 - other) * (pairs + reach * model)) / pairs
        return float(abs(area - other) - NORMAL * errors.mean())

    edge = 1e-12
    low = float(brentq(beyond, 0, area - edge if area == 1 else area)) if area > 0 else 0.0
    high = float(brentq(beyond, area + edge if area == 0 else area, 1)) if area < 1 else 1.0
    return Interval(low, high, BY_SCORE)


def balanced_accuracy_of(sums: MarkerSums) -> tuple[float | None, Interval]:
    """Mean recall over the classes that have cases, and its interval; None where only one has.

    Each class's interval is Wilson's; their distances from the recalls combine as the standard
    errors of independent parts do (Zou and Donner 2008, Statistics in Medicine 27:1693).
    """
    present = [(k, n) for k, n in zip(sums.correct, sums.classes, strict=True) if n]
    if len(present) < 2:
        return None, Interval(None, None)
    recalls = np.array([k / n for k, n in present])
    low, high = np.array([_wilson(k, n) for k, n in present]).T
    value = float(recalls.sum() / len(present))
    below = float(np.linalg.norm(recalls - low)) / len(present)
    above = float(np.linalg.norm(high - recalls)) / len(present)
    return value, Interval(max(0.0, value - below), min(1.0, value + above), BY_WILSON)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a fraction (1927, JASA 22:209)."""
    square = NORMAL**2
    centre = (hits + square / 2) / (n + square)
    half = NORMAL * math.sqrt(hits * (n - hits) / n + square / 4) / (n + square)
    return max(0.0, centre - half), min(1.0, centre + half)


def _rows(
    role: Role, site: str, sums: ScoreSums, parts: Mapping[str, ScoreSums], absent: str = ""
) -> list[ScoreRow]:
    out = []
    for task, metric, n, value, found in (*_mask(sums), *_markers(sums, site == ALL_SITES)):
        left = [_left_out(task, name, one, site) for name, one in parts.items()]
        note = "; ".join(filter(None, (absent, *left, found.note, _patients(sums, value))))
        out.append(
            ScoreRow(MODEL, role, site, task, metric, n, value, found.low, found.high, 1, note=note)
        )
    return out


def _mask(sums: ScoreSums) -> list[Named]:
    dice = sums.mask
    found = mean_interval(dice, 1.0)
    if not dice.n and MASK not in sums.left_out:
        found = Interval(None, None, "no case with an expert mask")
    return [(MASK, "dice", dice.n, dice.sum / dice.n if dice.n else None, found)]


def _markers(sums: ScoreSums, over_sites: bool) -> list[Named]:
    out: list[Named] = []
    for marker in MARKERS:
        own = sums.markers.get(marker.id)
        if own is None:
            nothing = Interval(None, None)
            out += [(marker.id, m, 0, None, nothing) for m in ("auc", "balanced_accuracy", "brier")]
            continue
        n = sum(own.classes)
        lacking = Interval(None, None, _lacking(marker.id, own.classes))
        area, (recall, around) = auc_of(own.areas), balanced_accuracy_of(own)
        between = auc_interval(own.areas)
        if area is None:
            between = lacking if lacking.note else Interval(None, None, "no site has two classes")
        elif over_sites:
            between = Interval(between.low, between.high, f"{SAME_SITE}; {between.note}")
        most = 1.0 if len(marker.classes) == 2 else 2.0
        brier = own.brier.sum / n if n else None
        out += [
            (marker.id, "auc", own.areas.cases or n, area, between),
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
    if task not in sums.left_out:
        return ""
    if sums.left_out[task] == "not finite":
        why = "a probability is not finite"
    else:
        kind = "" if not sums.cases else " with an expert mask" if task == MASK else " of a class"
        why = f"{HIDDEN} {sums.smallest} cases{kind}"
    return f"without {name} ({why})" if site == ALL_SITES else f"{why} at this site"


def _patients(sums: ScoreSums, value: float | None) -> str:
    if value is None or sums.patients == sums.cases:
        return ""
    return f"{sums.cases} cases of {sums.patients} patients, taken as if independent"
