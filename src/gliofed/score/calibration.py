"""Whether a stated probability can be taken at its word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliofed.score.discrimination import Index, Probabilities
from gliofed.score.intervals import Values, Weights, mean


def brier(truth: Index, probabilities: Probabilities, weights: Weights) -> Values:
    """Mean squared error of the probabilities (Brier 1950). NaN without cases.

    weights: (replicates, n). Two classes: of the second class's probability, 0 to 1. More: summed
    over classes, 0 to 2.
    """
    classes = probabilities.shape[1]
    squared = ((probabilities - np.eye(classes)[truth]) ** 2).sum(1)
    return mean(squared / 2 if classes == 2 else squared, weights)


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
