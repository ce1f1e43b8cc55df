"""The metrics of a marker: one line each, in the order of the score table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Final

import numpy as np

from gliofed.evaluation.intervals.analytic import Z_95
from gliofed.evaluation.intervals.bootstrap import Interval, Values
from gliofed.evaluation.intervals.estimate import (
    NO_INTERVAL,
    NOT_TRAINED,
    MetricEstimate,
    fixed_estimate,
    missing_estimate,
    resampled_estimate,
)
from gliofed.evaluation.intervals.sample import (
    PredictionSample,
    balanced_accuracy_interval,
    bootstrap_t_interval,
    delong_interval,
    logit_interval,
    resampled_auc_interval,
    varied_percentile_interval,
    wilson_interval,
)
from gliofed.evaluation.logistic_regression import LogisticFit
from gliofed.evaluation.metrics.calibration import (
    BINS,
    brier,
    calibration_error,
    calibration_error_if_calibrated,
    calibration_in_the_large,
    recalibration,
)
from gliofed.evaluation.metrics.discrimination import (
    ClassIndices,
    Probabilities,
    auc,
    auc_between_pairs,
    balanced_accuracy,
    between_groups,
    recall,
    recall_at_other_recall,
)
from gliofed.evaluation.results import CaseResult
from gliofed.markers import Marker
from gliofed.types import Unknown

BY_WALD: Final = "Wald, from the fit's covariance"
AT_HALF: Final = "threshold 0.5"
OWN_THRESHOLD: Final = "threshold chosen on these cases"
SEPARATED: Final = (
    "separated: the probabilities separate the classes completely, so that no fit exists"
)
ALL_EQUAL: Final = "all probabilities are equal"
CALIBRATED_DRAWS: Final = 1000
"""Of the calibration error that a calibrated model would have on the same cases."""


@dataclass(frozen=True)
class MarkerPredictions:
    """Predictions of one marker for cases with a known class.

    truth: (n,) class indices, n at least 1. probabilities: (n, classes), all finite.
    """

    results: Sequence[CaseResult]
    sample: PredictionSample
    truth: ClassIndices
    probabilities: Probabilities
    class_names: tuple[str, ...]
    replicates: int

    @property
    def one_class(self) -> str:
        """Note that only one class is present; empty if several are."""
        present = np.unique(self.truth)
        return f"only {self.class_names[present[0]]} present" if len(present) == 1 else ""

    @property
    def by_seed(self) -> list[tuple[ClassIndices, Probabilities]]:
        """Truth and probabilities of each seed."""
        each = [self.sample.seeds == s for s in range(self.sample.repeats)]
        return [(self.truth[own], self.probabilities[own]) for own in each]

    @cached_property
    def recalibrations(self) -> list[LogisticFit | None]:
        """One fit a seed."""
        return [recalibration(*own) for own in self.by_seed]


@dataclass(frozen=True)
class MarkerMetric:
    """classes: the number of classes a marker must have; None for any."""

    id: str
    estimate: Callable[[MarkerPredictions], MetricEstimate]
    classes: int | None = None


def marker_estimates(
    results: Sequence[CaseResult], marker: Marker, replicates: int
) -> dict[str, MetricEstimate]:
    """Every metric of the marker on the cases with a known class."""
    known = [r for r in results if not isinstance(r.labels[marker.id], Unknown)]
    measures = [m for m in MARKER_METRICS if m.classes in (None, len(marker.classes))]
    truth = np.array([marker.classes.index(str(r.labels[marker.id])) for r in known], np.int64)
    rows = [r.probabilities[marker.id] for r in known]
    found = np.array(rows, float).reshape(len(known), len(marker.classes))
    bad = [r.case for r, p in zip(known, found, strict=True) if not np.isfinite(p).all()]
    if bad or not known:
        why = f"probability of {bad[0]} is not finite" if bad else "no case with a known label"
        why = NOT_TRAINED if bad and np.isnan(found).all() else why
        return {m.id: missing_estimate(len(known), why) for m in measures}
    sample = PredictionSample.of(known, replicates)
    predictions = MarkerPredictions(known, sample, truth, found, marker.classes, replicates)
    return {m.id: m.estimate(predictions) for m in measures}


def _area(predictions: MarkerPredictions) -> MetricEstimate:
    around = partial(
        resampled_auc_interval, predictions.sample, predictions.truth, predictions.probabilities
    )
    metric = partial(auc, predictions.truth, predictions.probabilities)
    return resampled_estimate(
        predictions.results, predictions.sample, metric, around, predictions.one_class
    )


def _area_by_delong(predictions: MarkerPredictions) -> MetricEstimate:
    """The same value as `_area`, without resampling."""
    value = predictions.sample.value(partial(auc, predictions.truth, predictions.probabilities))
    if not np.isfinite(value):
        return fixed_estimate(
            predictions.results, predictions.sample, None, note=predictions.one_class
        )
    bounds = delong_interval(predictions.sample, predictions.truth, predictions.probabilities)
    return fixed_estimate(predictions.results, predictions.sample, value, bounds)


def _area_of_pairs(predictions: MarkerPredictions) -> MetricEstimate:
    metric = partial(auc_between_pairs, predictions.truth, predictions.probabilities)
    return resampled_estimate(
        predictions.results, predictions.sample, metric, logit_interval, predictions.one_class
    )


def _area_between(
    positive: tuple[str, ...], negative: tuple[str, ...]
) -> Callable[..., MetricEstimate]:
    """The AUC of one group of classes against another, by names, among their cases."""

    def figure(predictions: MarkerPredictions) -> MetricEstimate:
        groups = [[predictions.class_names.index(name) for name in g] for g in (positive, negative)]
        inside, truth, found = between_groups(predictions.truth, predictions.probabilities, *groups)
        own = [r for r, among in zip(predictions.results, inside, strict=True) if among]
        names = ("-".join(negative), "-".join(positive))
        if not own:
            return missing_estimate(0, f"no case of {' or '.join(sorted(positive + negative))}")
        sample = PredictionSample.of(own, predictions.replicates)
        return _area(MarkerPredictions(own, sample, truth, found, names, predictions.replicates))

    return figure


def _balanced_accuracy(predictions: MarkerPredictions) -> MetricEstimate:
    metric = partial(balanced_accuracy, predictions.truth, predictions.probabilities)

    def around(value: float, again: Values) -> Interval:
        return balanced_accuracy_interval(
            predictions.sample, predictions.truth, predictions.probabilities
        )

    return resampled_estimate(
        predictions.results, predictions.sample, metric, around, predictions.one_class
    )


def _recall(of_class: int) -> Callable[..., MetricEstimate]:
    def figure(predictions: MarkerPredictions) -> MetricEstimate:
        own = (predictions.truth == of_class) * 1.0
        hits = own * (predictions.probabilities.argmax(1) == predictions.truth)
        metric = partial(recall, predictions.truth, predictions.probabilities, of_class=of_class)

        def around(value: float, again: Values) -> Interval:
            return wilson_interval(predictions.sample, hits, own)

        found = resampled_estimate(
            predictions.results,
            predictions.sample,
            metric,
            around,
            predictions.one_class or AT_HALF,
        )
        n = len({c for c, inside in zip(predictions.sample.cases, own, strict=True) if inside})
        return replace(found, n=n)

    return figure


def _recall_where(of_class: int, other: float) -> Callable[..., MetricEstimate]:
    def figure(predictions: MarkerPredictions) -> MetricEstimate:
        metric = partial(
            recall_at_other_recall,
            predictions.truth,
            predictions.probabilities,
            of_class=of_class,
            other=other,
        )
        why = predictions.one_class or OWN_THRESHOLD
        return resampled_estimate(
            predictions.results,
            predictions.sample,
            metric,
            lambda _, v: varied_percentile_interval(v),
            why,
        )

    return figure


def _brier(predictions: MarkerPredictions) -> MetricEstimate:
    classes = len(predictions.class_names)
    errors = ((predictions.probabilities - np.eye(classes)[predictions.truth]) ** 2).sum(1) / (
        2 if classes == 2 else 1
    )
    most = 1.0 if classes == 2 else 2.0

    def around(value: float, again: Values) -> Interval:
        return bootstrap_t_interval(predictions.sample, errors, np.ones(len(errors)), (0.0, most))

    metric = partial(brier, predictions.truth, predictions.probabilities)
    return resampled_estimate(predictions.results, predictions.sample, metric, around)


def _calibration_error(predictions: MarkerPredictions) -> MetricEstimate:
    """Without an interval: few cases raise the error, and resampling raises it again."""
    value = predictions.sample.value(
        partial(calibration_error, predictions.truth, predictions.probabilities)
    )
    seeds = [predictions.sample.seeds == s for s in range(predictions.sample.repeats)]
    ideal = np.mean(
        [
            calibration_error_if_calibrated(predictions.probabilities[own], CALIBRATED_DRAWS)
            for own in seeds
        ],
        axis=0,
    )
    low, high = np.percentile(ideal, [2.5, 97.5])
    note = (
        f"{BINS} bins of equal counts; a calibrated model would have {ideal.mean():.3f} "
        f"({low:.3f} to {high:.3f}) on these cases; no interval: it is biased upwards"
    )
    return fixed_estimate(predictions.results, predictions.sample, value, note=note)


def _in_the_large(predictions: MarkerPredictions) -> list[LogisticFit]:
    return [calibration_in_the_large(*own) for own in predictions.by_seed]


def _fitted(
    place: int, fits: Callable[[MarkerPredictions], Sequence[LogisticFit | None]]
) -> Callable[..., MetricEstimate]:
    """A coefficient of a fit of each seed; of several, the mean and the mean of their errors,
    which the mean's own error cannot exceed."""

    def figure(predictions: MarkerPredictions) -> MetricEstimate:
        if predictions.one_class:
            return fixed_estimate(
                predictions.results, predictions.sample, None, note=predictions.one_class
            )
        values, errors = [], []
        for found in fits(predictions):
            if found is None or not found.converged:
                why = ALL_EQUAL if found is None else SEPARATED
                return fixed_estimate(predictions.results, predictions.sample, None, note=why)
            values.append(found.coefficients[0, place])
            errors.append(np.sqrt(found.covariance[place, place]))
        value, half = float(np.mean(values)), Z_95 * float(np.mean(errors))
        bounds = Interval(value - half, value + half, method=BY_WALD)
        if not len(predictions.sample.resamples):
            return fixed_estimate(
                predictions.results, predictions.sample, value, NO_INTERVAL, "one patient"
            )
        return fixed_estimate(predictions.results, predictions.sample, value, bounds)

    return figure


MARKER_METRICS: Final = (
    MarkerMetric("auc", _area),
    MarkerMetric("auc_delong", _area_by_delong),
    MarkerMetric("auc_pairs", _area_of_pairs, classes=3),
    MarkerMetric("auc_4_against_2_3", _area_between(("4",), ("2", "3")), classes=3),
    MarkerMetric("auc_3_against_2", _area_between(("3",), ("2",)), classes=3),
    MarkerMetric("balanced_accuracy", _balanced_accuracy),
    MarkerMetric("sensitivity", _recall(1), classes=2),
    MarkerMetric("specificity", _recall(0), classes=2),
    MarkerMetric("sensitivity_at_specificity_90", _recall_where(1, 0.9), classes=2),
    MarkerMetric("specificity_at_sensitivity_90", _recall_where(0, 0.9), classes=2),
    MarkerMetric("brier", _brier),
    MarkerMetric("calibration_error", _calibration_error),
    MarkerMetric("calibration_slope", _fitted(1, lambda a: a.recalibrations), classes=2),
    MarkerMetric("calibration_intercept", _fitted(0, lambda a: a.recalibrations), classes=2),
    MarkerMetric("calibration_in_the_large", _fitted(0, _in_the_large), classes=2),
)
