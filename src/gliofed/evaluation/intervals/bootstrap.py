"""Patient bootstrap: resampling weights, weighted means and quantiles, percentile intervals.

A resample is a row of weights: how often each case was drawn. Every metric takes such weights,
(replicates, cases), and gives one value a replicate, NaN where it is undefined.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.integer]
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
    since most figures of a group use the same draws. In memory, the replicates of a case are next
    to each other: metrics pick, sort and add up cases.
    """
    return _weights(tuple(patients), replicates)


@functools.lru_cache(maxsize=8)
def _weights(patients: tuple[str, ...], replicates: int) -> Weights:
    names = tuple(sorted(set(patients)))
    row = {name: index for index, name in enumerate(names)}
    weights = _DRAWN.get(names, replicates).T[[row[p] for p in patients]].T
    weights.setflags(write=False)
    return weights


def _draw(names: tuple[str, ...], replicates: int) -> Weights:
    """Weights (replicates, patients) of sorted names."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
    fits = len(names) <= np.iinfo(np.int16).max  # no patient is drawn more often
    return np.asfortranarray(drawn, np.int16 if fits else np.int64)


class _DrawCache:
    """The draws used last, of at most so many bytes together; the last ones always."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._lock = most_bytes, threading.Lock()
        self._held: dict[tuple[tuple[str, ...], int], Weights] = {}

    def get(self, names: tuple[str, ...], replicates: int) -> Weights:
        """Of sorted names."""
        with self._lock:
            drawn = self._held.pop((names, replicates), None)
        if drawn is None:
            drawn = _draw(names, replicates)
        with self._lock:
            self._held[names, replicates] = drawn
            held = sum(d.nbytes for d in self._held.values())
            while held > self._most and len(self._held) > 1:
                held -= self._held.pop(next(iter(self._held))).nbytes
        return drawn


_DRAWN: Final = _DrawCache(128 * 2**20)


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
