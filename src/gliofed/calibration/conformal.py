"""Split conformal prediction: sets of classes with a target coverage of the true one.

A class is in a case's set where its probability is at least a threshold; the nonconformity score is
1 minus the probability of the true class (Vovk, Gammerman and Shafer 2005, Algorithmic Learning in
a Random World; Angelopoulos and Bates 2023, Foundations and Trends in Machine Learning 16:494). The
coverage is guaranteed on average over cases that are exchangeable with the calibration cases. It is
not guaranteed at other hospitals or, with unequal sites, at each site (Lu et al. 2023, ICML,
federated conformal predictors, on weaker assumptions). Coverage is therefore measured at each site.

Sites send counts on the grid of `probability_bins`. A threshold from these counts is at most one
bin below that of the pooled cases and never above it: sets may be larger, never smaller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.probability_bins import (
    BINS,
    EDGES,
    Counts,
    bin_indices,
    counts_at_or_above,
)
from gliofed.evaluation.intervals.analytic import wilson_bounds
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.markers import BY_ID

Sets = NDArray[np.bool_]


@dataclass(frozen=True)
class PredictionSets:
    """One marker's prediction sets.

    alpha: target miss rate of the true class. by_class: the target holds for the cases of each
    class (Mondrian; Vovk 2013, Machine Learning 92:349), else for all cases together. at_least: a
    threshold a class; 0 with too few cases. n: calibration cases a class.
    """

    marker: str
    alpha: float
    by_class: bool
    at_least: tuple[float, ...]
    n: tuple[int, ...]
    note: str = ""

    def sets(self, probabilities: Probabilities) -> Sets:
        """(n, classes), true where the class is in the set; may be empty. NaN is in every set."""
        return ~(probabilities < np.array(self.at_least))


@dataclass(frozen=True)
class SetCoverage:
    """Coverage of the true class by prediction sets. n: cases. low, high: Wilson's 95 % interval of
    `value`.

    size: mean number of classes in a set. empty, single: sets of no and of one class. Without a
    case, all but the counts are None.
    """

    n: int
    covered: int
    value: float | None
    low: float | None
    high: float | None
    size: float | None
    empty: int
    single: int


def true_class_counts(truth: ClassIndices, probabilities: Probabilities) -> Counts:
    """(classes, BINS): cases of each class by bin of the probability of that class.

    Counts of several sites add. probabilities: (n, classes), finite.
    """
    counts = np.zeros((probabilities.shape[1], BINS), np.int64)
    np.add.at(counts, (truth, bin_indices(probabilities[np.arange(len(truth)), truth])), 1)
    return counts


def fit_prediction_sets(
    marker: str, counts: Counts, alpha: float, by_class: bool
) -> PredictionSets:
    """Compute thresholds from the counts of all sites. Raises ValueError unless 0 < alpha < 1.

    Of n cases, the threshold is the ceil((n + 1) (1 - alpha))-th largest probability of a true
    class; if n is smaller than that rank, every class is in every set.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, expected a number between 0 and 1")
    classes = BY_ID[marker].classes
    n = tuple(int(own.sum()) for own in counts)
    if by_class:
        at_least = tuple(_threshold(own, alpha) for own in counts)
        few = [c for c, own in zip(classes, n, strict=True) if _rank(own, alpha) > own]
    else:
        at_least = (_threshold(counts.sum(0), alpha),) * len(classes)
        few = list(classes) if _rank(sum(n), alpha) > sum(n) else []
    note = f"too few calibration cases: always in the set are {', '.join(few)}" if few else ""
    return PredictionSets(marker, alpha, by_class, at_least, n, note)


def set_coverage(sets: Sets, truth: ClassIndices) -> SetCoverage:
    """Coverage in one group of cases, such as those of one site. sets: (n, classes), truth:
    (n,)."""
    sizes = sets.sum(1)
    n, hits = len(truth), int(sets[np.arange(len(truth)), truth].sum())
    empty, single = int((sizes == 0).sum()), int((sizes == 1).sum())
    if not n:
        return SetCoverage(0, 0, None, None, None, None, empty, single)
    low, high = wilson_bounds(hits, n)
    return SetCoverage(n, hits, hits / n, low, high, float(sizes.mean()), empty, single)


def _threshold(counts: Counts, alpha: float) -> float:
    reached = counts_at_or_above(counts) >= _rank(int(counts.sum()), alpha)
    return float(EDGES[np.flatnonzero(reached)[-1]]) if reached.any() else 0.0


def _rank(n: int, alpha: float) -> int:
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 1e-9: 1 - alpha is not exact in floating point
