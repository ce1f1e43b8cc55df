"""Intervals by formula, from sums alone: of a mean, a fraction, a mean of recalls, an AUC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit

from gliofed.evaluation.by_site_sums.sums import AucSums, MarkerSums, ValueMoments
from gliofed.evaluation.intervals.bootstrap import Interval

Z_95: Final = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""
BY_T: Final = "Student's t, of the mean"
BY_DELONG: Final = "DeLong 1988, logit scale"
BY_SCORE: Final = "Newcombe 2006, method 5; the pairs won have no spread"
BY_WILSONS: Final = "Wilson 1927 of each class, combined (Zou and Donner 2008)"
_LEAST_VARIANCE: Final = 1e-12


def mean_interval(values: ValueMoments, most: float) -> Interval:
    """Student's t interval of a mean of values from 0 to `most`, cut to that range."""
    if values.n < 2:
        return Interval(None, None, "no interval: one case" if values.n else "")
    centre = values.sum / values.n
    variance = (values.squares - values.sum * centre) / (values.n - 1)
    if variance <= _LEAST_VARIANCE:
        return Interval(None, None, "no interval: the cases do not differ")
    half = float(stdtrit(values.n - 1, 0.975)) * math.sqrt(variance / values.n)
    return Interval(max(0.0, centre - half), min(most, centre + half), method=BY_T)


def auc_from_sums(areas: AucSums) -> float | None:
    """Pairs won of all pairs; with more classes, the mean over those that have any.

    Of one site, exactly `metrics.discrimination.auc`. None without a pair.
    """
    pairs, won = np.array(areas.pairs), np.array(areas.won)
    found = pairs > 0
    if not found.any():
        return None
    shares = np.zeros(len(pairs))
    np.divide(won, pairs, out=shares, where=found)
    return float(shares.sum() / found.sum())


def auc_interval(areas: AucSums) -> Interval:
    """A 95 % interval of `auc_from_sums`, on the logit scale, from DeLong's variance.

    The variance of the pairs won adds up over sites, which are independent. If it is 0, or all
    pairs are won or all lost, the interval is Newcombe's (2006, Statistics in Medicine 25:559,
    method 5): all areas that lie within 1.96 standard errors, with the variance of that area in
    Hanley and McNeil's model.
    """
    area = auc_from_sums(areas)
    if area is None:
        return Interval(None, None)
    pairs = np.array(areas.pairs, float)
    found = pairs > 0
    share = 1 / (found.sum() * pairs[found])
    covariance = np.array(areas.covariance)[np.ix_(found, found)]
    variance = float(share @ covariance @ share)
    if variance <= _LEAST_VARIANCE or not 0 < area < 1:
        return _by_score(area, pairs[found], np.array(areas.reach)[found])
    half = Z_95 * math.sqrt(variance) / (area * (1 - area))
    low, high = expit(logit(area) + np.array([-half, half]))
    return Interval(float(low), float(high), method=BY_DELONG)


def _by_score(area: float, pairs: NDArray[np.float64], reach: NDArray[np.float64]) -> Interval:
    """The score interval; of a mean of comparisons, the error is taken as the mean of theirs,
    an upper bound."""

    from scipy.optimize import brentq

    def beyond(other: float) -> float:
        model = (1 - other) / (2 - other) + other / (1 + other)
        errors = np.sqrt(other * (1 - other) * (pairs + reach * model)) / pairs
        return float(abs(area - other) - Z_95 * errors.mean())

    edge = 1e-12
    low = float(brentq(beyond, 0, area - edge if area == 1 else area)) if area > 0 else 0.0
    high = float(brentq(beyond, area + edge if area == 0 else area, 1)) if area < 1 else 1.0
    return Interval(low, high, method=BY_SCORE)


def balanced_accuracy_from_sums(sums: MarkerSums) -> tuple[float | None, Interval]:
    """Mean recall over the classes that have cases, and its interval; None with fewer than two.

    Each class's interval is Wilson's; their distances from the recalls combine as the standard
    errors of independent parts do (Zou and Donner 2008, Statistics in Medicine 27:1693).
    """
    present = [(k, n) for k, n in zip(sums.correct, sums.classes, strict=True) if n]
    if len(present) < 2:
        return None, Interval(None, None)
    return mean_recall_interval([k / n for k, n in present], [n for _, n in present])


def mean_recall_interval(
    recalls: Sequence[float], counts: Sequence[float]
) -> tuple[float, Interval]:
    """The mean of at least one class's recall, and its interval. counts: cases of each class."""
    centre = np.array(recalls)
    bounds = [wilson_bounds(r * n, n) for r, n in zip(recalls, counts, strict=True)]
    low, high = np.array(bounds).T
    value = float(centre.sum() / len(centre))
    below = float(np.linalg.norm(centre - low)) / len(centre)
    above = float(np.linalg.norm(high - centre)) / len(centre)
    return value, Interval(max(0.0, value - below), min(1.0, value + above), method=BY_WILSONS)


def wilson_bounds(hits: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a fraction (1927, JASA 22:209). n: above 0."""
    square = Z_95**2
    centre = (hits + square / 2) / (n + square)
    half = Z_95 * math.sqrt(hits * (n - hits) / n + square / 4) / (n + square)
    return max(0.0, centre - half), min(1.0, centre + half)
