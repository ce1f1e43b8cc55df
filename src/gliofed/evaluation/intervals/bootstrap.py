"""Patient bootstrap: resampling weights, weighted means and quantiles, percentile intervals.

A resample is a row of weights: how often each case was drawn. Every metric takes such weights,
(replicates, cases), and gives one value a replicate, NaN where it is undefined.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.int64]
Values = NDArray[np.float64]
MAX_MISSING = 0.5
BY_PERCENTILE: Final = "bootstrap, percentile"
"""Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13."""
TOO_FEW: Final = "no interval: the metric exists in too few resamples"


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; without one, both sides are None and `note` gives the reason.

    method: its name; empty without an interval.
    """

    low: float | None
    high: float | None
    note: str = ""
    method: str = ""


def unit_weights(cases: int) -> Weights:
    """The weights of the sample itself: (1, cases) of ones."""
    return np.ones((1, cases), np.int64)


def patient_resamples(patients: Sequence[str], replicates: int) -> Weights:
    """Weights (replicates, cases): patients drawn with replacement, each with all of its cases.

    patients: the patient of each case. The draws depend on the patients' names alone, so that two
    models on the same patients are compared on the same draws. The array is read-only and cached,
    since most figures of a group use the same draws.
    """
    return _drawn(tuple(patients), replicates)


@functools.lru_cache(maxsize=4)
def _drawn(patients: tuple[str, ...], replicates: int) -> Weights:
    names = sorted(set(patients))
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    row = {name: index for index, name in enumerate(names)}
    weights = drawn[:, [row[p] for p in patients]]
    weights.setflags(write=False)
    return weights


def percentile_interval(values: Values) -> Interval:
    """The middle 95 % of a metric's replicates; undefined ones are excluded."""
    found = values[np.isfinite(values)]
    if len(found) <= (1 - MAX_MISSING) * len(values):
        return Interval(None, None, TOO_FEW)
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(low), float(high), method=BY_PERCENTILE)


def weighted_mean(values: Values, weights: Weights) -> Values:
    """Weighted mean of (cases,) values. NaN without cases."""
    return ratio(weights @ values, weights.sum(1))


def weighted_median(values: Values, weights: Weights) -> Values:
    """Median of (cases,) values, each repeated by its weight. NaN without cases."""
    return weighted_quantile(values, weights, 0.5)


def weighted_quantile(values: Values, weights: Weights, share: float) -> Values:
    """The quantile of (cases,) values, each repeated by its weight. NaN without cases.

    Between two values as numpy's "linear" (Hyndman & Fan 1996, definition 7).
    """
    if len(values) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    reached = weights[:, order].cumsum(1)
    total = reached[:, -1]
    place = share * np.maximum(total - 1, 0)
    # the first case whose running count passes each of the two places around it
    beside = [(reached > side(place)[:, None]).argmax(1) for side in (np.floor, np.ceil)]
    low, high = (values[order][b] for b in beside)
    found: Values = low + (high - low) * (place - np.floor(place))
    return np.where(total > 0, found, np.nan)


def ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Values:
    """Quotients, NaN over zero."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
