"""Selective prediction: rejecting the least confident predictions, its coverage and its risk.

The risk at a coverage is the share of errors among the most confident cases that make up this
share of all (El-Yaniv and Wiener 2010, Journal of Machine Learning Research 11:1605); the area
under that curve is its mean over 1, 2, ... all cases accepted (Geifman et al. 2019, ICLR). Cases of
equal confidence share their errors evenly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

from gliofed.calibration.probability_bins import (
    BINS,
    EDGES,
    Counts,
    bin_indices,
    counts_at_or_above,
)
from gliofed.evaluation.intervals.analytic import wilson_bounds
from gliofed.evaluation.intervals.bootstrap import (
    Interval,
    Values,
    Weights,
    patient_resamples,
    percentile_interval,
    ratio,
    unit_weights,
)

COVERAGES: Final = (1.0, 0.9, 0.8, 0.7)
Wrong = NDArray[np.bool_] | Values


@dataclass(frozen=True)
class SelectiveRiskRow:
    """Error rate among the most confident `coverage` of the predictions; if None, the area under
    the curve. n: cases, each counted once over all seeds. low, high: 95 % bootstrap interval over
    patients, None with the reason in `note`."""

    model: str
    marker: str
    coverage: float | None
    n: int
    value: float | None
    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True)
class ConfidenceThreshold:
    """The lowest confidence at which the accepted predictions have an error rate of at most
    `target_risk`.

    n: calibration cases. n_kept, n_errors: accepted ones, and wrong ones among these. at_least:
    None if no threshold reaches the target; then nothing is accepted. low, high: Wilson's 95 %
    interval of n_errors / n_kept. The threshold was chosen on these cases, so that new cases tend
    to have more errors: see `high`.
    """

    marker: str
    target_risk: float
    at_least: float | None
    n: int
    n_kept: int
    n_errors: int
    low: float | None
    high: float | None
    note: str = ""

    def accepts(self, confidence: Values) -> NDArray[np.bool_]:
        """(n,), true where the prediction is accepted. NaN is rejected."""
        if self.at_least is None:
            return np.zeros(confidence.shape, bool)
        return confidence >= self.at_least


def area_under_risk_coverage(confidence: Values, wrong: Wrong, weights: Weights) -> Values:
    """Area under the coverage-risk curve. weights: (replicates, n). NaN without cases.

    confidence, wrong: (n,). A NaN confidence is the lowest.
    """
    return _area(_groups(confidence, wrong, weights))


def risk_at_coverage(confidence: Values, wrong: Wrong, weights: Weights, coverage: float) -> Values:
    """Error rate among the most confident `coverage` of the cases, their number rounded up.

    Arguments as in `area_under_risk_coverage`.
    """
    return _risk(_groups(confidence, wrong, weights), coverage)


@dataclass(frozen=True)
class ConfidentPredictions:
    """n predictions of one marker. cases: patient and case. confidence, wrong: (n,)."""

    cases: Sequence[tuple[str, str]]
    confidence: Values
    wrong: Wrong


def selective_risk_rows(
    model: str, marker: str, predictions: ConfidentPredictions, replicates: int
) -> tuple[SelectiveRiskRow, ...]:
    """The risk at `COVERAGES`, and the area under the curve last."""
    cases, n = predictions.cases, len(set(predictions.cases))
    curve: tuple[float | None, ...] = (*COVERAGES, None)
    if not cases:
        return tuple(
            SelectiveRiskRow(model, marker, c, 0, None, None, None, "no case") for c in curve
        )
    patients = [patient for patient, _ in cases]
    grouped = partial(_groups, predictions.confidence, predictions.wrong)
    own = grouped(unit_weights(len(cases)))
    drawn = grouped(patient_resamples(patients, replicates)) if len(set(patients)) > 1 else None
    rows = []
    for coverage in curve:
        metric = _area if coverage is None else partial(_risk, coverage=coverage)
        bounds = Interval(None, None, "one patient")
        if drawn is not None:
            bounds = percentile_interval(metric(drawn))
        value = float(metric(own)[0])
        rows.append(
            SelectiveRiskRow(
                model, marker, coverage, n, value, bounds.low, bounds.high, bounds.note
            )
        )
    return tuple(rows)


def confidence_counts(confidence: Values, wrong: Wrong) -> Counts:
    """(2, BINS): right and wrong predictions by confidence. Counts of several sites add."""
    counts = np.zeros((2, BINS), np.int64)
    np.add.at(counts, (wrong.astype(np.int64), bin_indices(confidence)), 1)
    return counts


def fit_confidence_threshold(
    marker: str, counts: Counts, target_risk: float
) -> ConfidenceThreshold:
    """The threshold that accepts most cases, among the bin edges; exact, since counts at edges
    are."""
    right, errors = counts_at_or_above(counts)
    accepted = right + errors
    n = int(accepted[0])
    good = np.flatnonzero((accepted > 0) & (errors <= target_risk * accepted + 1e-9))
    if not len(good):
        why = f"no threshold has an error rate of {target_risk:g} or less" if n else "no case"
        return ConfidenceThreshold(marker, target_risk, None, n, 0, 0, None, None, why)
    edge = int(good[0])
    low, high = wilson_bounds(int(errors[edge]), int(accepted[edge]))
    return ConfidenceThreshold(
        marker,
        target_risk,
        float(EDGES[edge]),
        n,
        int(accepted[edge]),
        int(errors[edge]),
        low,
        high,
    )


@dataclass(frozen=True)
class _Groups:
    """Cases of equal confidence together, by falling confidence. All (groups, replicates): cases
    and errors in each group, and in it and all before it."""

    cases: Counts
    errors: Values | Counts
    cases_through: Counts
    errors_through: Values | Counts


def _groups(confidence: Values, wrong: Wrong, weights: Weights) -> _Groups:
    ranked = np.nan_to_num(confidence, nan=-1.0)
    order = np.argsort(-ranked, kind="stable")
    starts = np.flatnonzero(np.diff(ranked[order], prepend=np.inf))
    drawn = weights.T[order].astype(np.int64)
    cases, errors = drawn, drawn * wrong[order][:, None]
    if len(starts) < len(order):
        cases, errors = (np.add.reduceat(part, starts, axis=0) for part in (cases, errors))
    return _Groups(cases, errors, cases.cumsum(0), errors.cumsum(0))


def _area(groups: _Groups) -> Values:
    """The mean over k of errors(k) / k, errors rising evenly within a group."""
    before, missed = groups.cases_through - groups.cases, groups.errors_through - groups.errors
    n = groups.cases.sum(0)
    share = np.zeros(before.shape)
    np.divide(groups.errors, groups.cases, out=share, where=groups.cases > 0)
    harmonic = digamma(np.arange(1.0, n.max(initial=0) + 2))
    steps = harmonic[groups.cases_through] - harmonic[before]
    parts = (missed - before * share) * steps + share * groups.cases
    return ratio(np.ascontiguousarray(parts.T).sum(1), n)


def _risk(groups: _Groups, coverage: float) -> Values:
    n = groups.cases.sum(0)
    if not len(groups.cases):
        return np.full(n.shape, np.nan)
    accepted = np.ceil(coverage * n - 1e-9)
    last = (groups.cases_through < accepted).sum(0)[None]
    cases, errors, through, missed = (
        np.take_along_axis(part, last, 0)[0]
        for part in (groups.cases, groups.errors, groups.cases_through, groups.errors_through)
    )
    return ratio(missed - errors + (accepted - (through - cases)) * ratio(errors, cases), accepted)
