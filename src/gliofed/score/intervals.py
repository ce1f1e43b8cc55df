"""Bootstrap intervals over patients (Efron & Tibshirani 1993, percentile method)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Metric = Callable[[Rows], float | None]
MOST_MISSING = 0.5


@dataclass(frozen=True)
class Interval:
    """A 95 % interval; None on both sides, with why, where there is none."""

    low: float | None
    high: float | None
    note: str = ""


def resamples(patients: Sequence[str], replicates: int) -> list[Rows]:
    """Row numbers of each replicate: patients drawn with replacement, all their rows moving along.

    Decided by the patients' names alone, so that two models on the same patients are compared on
    the same draws.
    """
    names = sorted(set(patients))
    rows_of: dict[str, list[int]] = {name: [] for name in names}
    for row, name in enumerate(patients):
        rows_of[name].append(row)
    groups = [np.array(rows_of[name], np.int64) for name in names]
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    draws = rng.integers(0, len(names), (replicates, len(names)))
    if all(len(g) == 1 for g in groups):
        flat = np.concatenate(groups)
        return list(flat[draws])
    return [np.concatenate([groups[i] for i in draw]) for draw in draws]


def interval(values: Sequence[float | None]) -> Interval:
    """The middle 95 % of a metric's replicates; those in which it does not exist are left out."""
    found = [v for v in values if v is not None]
    if len(found) < (1 - MOST_MISSING) * len(values) or not found:
        return Interval(None, None, "no interval: the metric exists in too few resamples")
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(float(low), float(high))
