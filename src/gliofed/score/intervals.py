"""Bootstrap intervals over patients (Efron & Tibshirani 1993, percentile method).

A resample is a row of weights: how often each case was drawn. Every metric takes such weights,
(replicates, cases), and gives one value a replicate, NaN where it does not exist there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.int64]
Values = NDArray[np.float64]
MOST_MISSING = 0.5


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; None on both sides, with why, where there is none."""

    low: float | None
    high: float | None
    note: str = ""


def once(cases: int) -> Weights:
    """The weights of the sample itself: (1, cases) of ones."""
    return np.ones((1, cases), np.int64)


def resamples(patients: Sequence[str], replicates: int) -> Weights:
    """Weights (replicates, cases): patients drawn with replacement, all their cases moving along.

    patients: the patient of each case. Decided by the patients' names alone, so that two models
    on the same patients are compared on the same draws.
    """
    names = sorted(set(patients))
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    row = {name: index for index, name in enumerate(names)}
    return drawn[:, [row[p] for p in patients]]


def interval(values: Values) -> Interval:
    """The middle 95 % of a metric's replicates; those in which it does not exist are left out."""
    found = values[np.isfinite(values)]
    if len(found) <= (1 - MOST_MISSING) * len(values):
        return Interval(None, None, "no interval: the metric exists in too few resamples")
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(low), float(high))


def mean(values: Values, weights: Weights) -> Values:
    """Weighted mean of (cases,) values. NaN without cases."""
    return ratio(weights @ values, weights.sum(1))


def median(values: Values, weights: Weights) -> Values:
    """Median of (cases,) values, each repeated as its weight says. NaN without cases."""
    if len(values) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    reached = weights[:, order].cumsum(1)
    total = reached[:, -1:]
    # the first case whose running count passes each of the two middle places
    middle = [(reached > place).argmax(1) for place in ((total - 1) // 2, total // 2)]
    found: Values = (values[order][middle[0]] + values[order][middle[1]]) / 2
    return np.where(total[:, 0] > 0, found, np.nan)


def ratio(above: NDArray[np.number], below: NDArray[np.number]) -> Values:
    """Quotients, NaN over zero."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
