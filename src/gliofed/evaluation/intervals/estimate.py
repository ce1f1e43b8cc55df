"""One estimate: a metric on a sample, with its replicates and its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.intervals.bootstrap import Interval, Values
from gliofed.evaluation.intervals.sample import Metric, PredictionSample
from gliofed.evaluation.results import CaseResult

NO_REPLICATES: Final[Values] = np.zeros(0)
NO_INTERVAL: Final = Interval(None, None)
NOT_TRAINED: Final = "no probability, as of a model that is not trained for this marker"
"""Why a model whose every probability of a marker is NaN has no figure."""


@dataclass(frozen=True)
class MetricEstimate:
    """A metric averaged over seeds: value, replicates, interval, and the reason if it is missing.

    rows: seed, fold, site and id of each prediction that entered. n: cases among them. replicates:
    empty if the metric is not resampled or undefined.
    """

    rows: tuple[tuple[int, str, str, str], ...]
    value: float | None
    replicates: Values
    n: int
    seeds: int
    interval: Interval = NO_INTERVAL
    note: str = ""


def resampled_estimate(
    results: Sequence[CaseResult],
    sample: PredictionSample,
    metric: Metric,
    around: Callable[[float, Values], Interval],
    note: str = "",
) -> MetricEstimate:
    """The metric on each seed's results, averaged over seeds, and on every resample of patients.

    around: the interval of a finite value and its replicates. If one seed has no value, the
    estimate is missing. note: also the reason for a missing value.
    """
    value = sample.value(metric)
    if not np.isfinite(value):
        return fixed_estimate(results, sample, None, note=note)
    if not len(sample.resamples):
        return fixed_estimate(results, sample, value, note=note or "one patient")
    again = sample.replicates(metric)
    bounds = around(value, again)
    return MetricEstimate(_rows(results), value, again, sample.n, sample.repeats, bounds, note)


def fixed_estimate(
    results: Sequence[CaseResult],
    sample: PredictionSample,
    value: float | None,
    bounds: Interval = NO_INTERVAL,
    note: str = "",
) -> MetricEstimate:
    """An estimate without replicates."""
    return MetricEstimate(
        _rows(results), value, NO_REPLICATES, sample.n, sample.repeats, bounds, note
    )


def missing_estimate(n: int, note: str) -> MetricEstimate:
    """A missing estimate for n cases, with the reason."""
    return MetricEstimate((), None, NO_REPLICATES, n, 0, note=note)


def _rows(results: Sequence[CaseResult]) -> tuple[tuple[int, str, str, str], ...]:
    return tuple((r.seed, r.fold, r.site, r.case) for r in results)
