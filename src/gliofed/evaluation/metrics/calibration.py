"""Calibration metrics: Brier score, expected calibration error, recalibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from gliofed.evaluation.intervals.bootstrap import Values, Weights, unit_weights, weighted_mean
from gliofed.evaluation.logistic_regression import LogisticFit, fit_logistic, logistic_sums
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities

BINS: Final = 10
PROBABILITY_EPSILON: Final = 1e-6
"""Probabilities are clipped to this distance from 0 and 1 before log odds."""


def brier(truth: ClassIndices, probabilities: Probabilities, weights: Weights) -> Values:
    """Mean squared error of the probabilities (Brier 1950). NaN without cases.

    weights: (replicates, n). Two classes: of the second class's probability, 0 to 1. More: summed
    over classes, 0 to 2.
    """
    classes = probabilities.shape[1]
    squared = ((probabilities - np.eye(classes)[truth]) ** 2).sum(1)
    return weighted_mean(squared / 2 if classes == 2 else squared, weights)


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin: mean predicted probability, observed fraction, cases."""

    predicted: float
    observed: float
    n: int


def calibration_curve(
    truth: NDArray[np.bool_], probability: NDArray[np.float64], bins: int
) -> tuple[CalibrationPoint, ...]:
    """Up to `bins` bins of equal case counts, by rising probability. Empty without cases."""
    order = np.argsort(probability, kind="stable")
    return tuple(
        CalibrationPoint(float(probability[part].mean()), float(truth[part].mean()), len(part))
        for part in np.array_split(order, bins)
        if len(part)
    )


def calibration_error(
    truth: ClassIndices, probabilities: Probabilities, weights: Weights
) -> Values:
    """Expected calibration error over 10 bins of equal weight, by rising probability (Naeini et
    al. 2015, AAAI 29; bins of equal counts as Nixon et al. 2019). NaN without cases.

    Two classes: of the second's probability. More: of the likeliest class's, against whether it is
    right. A case on a bin's edge is split between both bins, and cases of equal probability share
    alike, so that the result does not depend on the order of cases.
    """
    confidence, hit = _confidence_and_hits(truth, probabilities)
    return _gaps(confidence, confidence - hit, weights)


def calibration_error_if_calibrated(probabilities: Probabilities, draws: int) -> Values:
    """(draws,) calibration errors of a perfectly calibrated model on the same probabilities.

    Truths are drawn from the probabilities: with few cases, even these errors are above 0 (Broecker
    & Smith 2007, Weather and Forecasting 22:651, draw their bars so). The same at every call.
    """
    confidence, _ = _confidence_and_hits(np.zeros(len(probabilities), np.int64), probabilities)
    hits = np.random.default_rng(0).random((draws, len(confidence))) < confidence
    return _gaps(confidence, confidence - hits, unit_weights(len(confidence)))


def _confidence_and_hits(
    truth: ClassIndices, probabilities: Probabilities
) -> tuple[Values, Values]:
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], (truth == 1) * 1.0
    return probabilities.max(1, initial=0), (probabilities.argmax(1) == truth) * 1.0


def _gaps(confidence: Values, gap: Values, weights: Weights) -> Values:
    """gap: (cases,), or (replicates, cases) with weights of one row."""
    if not len(confidence):
        return np.full(len(weights), np.nan)
    order = np.argsort(confidence, kind="stable")
    last = np.append(np.diff(confidence[order]) != 0, True)
    ran, sums = (
        np.concatenate([np.zeros((len(part), 1)), part[:, order].cumsum(1)[:, last]], 1)
        for part in (weights, weights * gap)
    )
    total = ran[:, -1:]
    at = np.concatenate([_reached(ran, sums, total * b / BINS) for b in range(BINS + 1)], 1)
    error = np.abs(np.diff(at, axis=1)).sum(1)
    whole = total[:, 0]
    found: Values = np.where(whole > 0, error / np.where(whole > 0, whole, 1), np.nan)
    return found


def _reached(ran: Values, sums: Values, place: Values) -> Values:
    """(replicates, 1) the running sum where the running weight is `place`, linear in between."""
    after = np.clip((ran < place).sum(1, keepdims=True), 1, ran.shape[1] - 1)
    left, right = (np.take_along_axis(ran, i, 1) for i in (after - 1, after))
    rows = (len(sums), 1)
    low, high = (np.take_along_axis(sums, np.broadcast_to(i, rows), 1) for i in (after - 1, after))
    width = right - left
    share = np.where(width > 0, (place - left) / np.where(width > 0, width, 1), 1)
    reached: Values = low + (high - low) * share
    return reached


def recalibration(truth: ClassIndices, probabilities: Probabilities) -> LogisticFit | None:
    """Of two classes: the truth's log odds as intercept + slope times the predicted log odds (Cox
    1958, Biometrika 45:562). Calibrated: (0, 1); a slope below 1: probabilities too extreme.

    coefficients: ((intercept, slope),). None where the probabilities are all equal.
    """
    odds = _odds(probabilities)
    if not len(odds) or np.ptp(odds) < PROBABILITY_EPSILON:
        return None
    features = np.stack([np.ones_like(odds), odds], 1)
    return fit_logistic(lambda at: logistic_sums(at, features, truth), np.array([[0.0, 1.0]]))


def calibration_in_the_large(truth: ClassIndices, probabilities: Probabilities) -> LogisticFit:
    """The intercept alone, with the slope held at 1: above 0 where the second class is commoner
    than predicted (Steyerberg et al. 2010, Epidemiology 21:128)."""
    odds = _odds(probabilities)[:, None]
    return fit_logistic(
        lambda at: logistic_sums(at, np.ones_like(odds), truth, odds), np.zeros((1, 1))
    )


def _odds(probabilities: Probabilities) -> Values:
    odds: Values = logit(np.clip(probabilities[:, 1], PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
    return odds
