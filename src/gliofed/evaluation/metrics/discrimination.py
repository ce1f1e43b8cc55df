"""Discrimination metrics: AUCs and recalls, from class indices and probabilities."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.intervals.bootstrap import Values, Weights, ratio

ClassIndices = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def auc(truth: ClassIndices, probabilities: Probabilities, weights: Weights) -> Values:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counting half.

    truth: (n,) class indices; probabilities: (n, classes); weights: (replicates, n). Two classes:
    that of the second. More: the mean over classes of one against the rest (Hand & Till's first
    form), classes without cases or without rest omitted. NaN if no class has both.
    """
    classes = probabilities.shape[1]
    picks = range(1, 2) if classes == 2 else range(classes)
    areas = np.stack([_binary_auc(truth == c, probabilities[:, c], weights) for c in picks])
    return _mean_of_found(areas)


def auc_between_pairs(
    truth: ClassIndices, probabilities: Probabilities, weights: Weights
) -> Values:
    """The mean over pairs of classes of the AUC between the two (Hand & Till 2001, Machine
    Learning 45:171), each the mean of what the probability of either class gives.

    Pairs with an empty class are omitted; NaN if all are.
    """
    areas = []
    for one, other in combinations(range(probabilities.shape[1]), 2):
        two = (truth == one) | (truth == other)
        own, shares, drawn = truth[two], probabilities[two], weights[:, two]
        first = _binary_auc(own == one, shares[:, one], drawn)
        areas.append((first + _binary_auc(own == other, shares[:, other], drawn)) / 2)
    return _mean_of_found(np.stack(areas))


def between_groups(
    truth: ClassIndices,
    probabilities: Probabilities,
    positive: Collection[int],
    negative: Collection[int],
) -> tuple[NDArray[np.bool_], ClassIndices, Probabilities]:
    """Reduce two groups of classes to a two-class problem: mask of its cases, truth, probabilities.

    The probability of the positive group is its share of both, to 12 digits, so that rounding
    breaks no ties; half where both have none.
    """
    inside = np.isin(truth, [*positive, *negative])
    shares = [probabilities[inside][:, list(group)].sum(1) for group in (negative, positive)]
    both = shares[0] + shares[1]
    share = np.where(both > 0, shares[1] / np.where(both > 0, both, 1), 0.5).round(12)
    return inside, np.isin(truth[inside], list(positive)) * 1, np.stack([1 - share, share], 1)


def _mean_of_found(areas: Values) -> Values:
    found = np.isfinite(areas)
    return ratio(np.where(found, areas, 0).sum(0), found.sum(0))


def _binary_auc(positive: NDArray[np.bool_], score: Values, weights: Weights) -> Values:
    """From ranks: each positive case wins the cases drawn below it, and half of those beside it.

    Sums of whole numbers, exact in any order.
    """
    own, rest = (
        side[np.argsort(score[side])] for side in map(np.flatnonzero, (positive, ~positive))
    )
    drawn = weights.T
    above, reached = drawn[own], _running(drawn[rest])
    pairs = above.sum(0, dtype=np.int64) * reached[-1]
    small = 2 * pairs.max(initial=0) <= np.iinfo(np.int32).max
    twice = reached[np.searchsorted(score[rest], score[own], "left")]
    twice += reached[np.searchsorted(score[rest], score[own], "right")]
    won = (twice * above if small else twice.astype(np.int64) * above).sum(0)
    return ratio(won / 2, pairs)


def _running(drawn: Weights) -> NDArray[np.int32]:
    """(cases + 1, replicates) number of draws in the first 0, 1, ... of (cases, replicates)."""
    reached = np.zeros((drawn.shape[0] + 1, drawn.shape[1]), np.int32)
    np.cumsum(drawn, axis=0, dtype=np.int32, out=reached[1:])
    return reached


def balanced_accuracy(
    truth: ClassIndices, probabilities: Probabilities, weights: Weights
) -> Values:
    """Mean recall of the likeliest class, over the classes that have cases.

    NaN where only one class has cases.
    """
    hit = probabilities.argmax(1) == truth
    recalls = np.stack(
        [
            ratio(weights[:, (truth == c) & hit].sum(1), weights[:, truth == c].sum(1))
            for c in range(probabilities.shape[1])
        ]
    )
    found = np.isfinite(recalls)
    counts = found.sum(0)
    return ratio(np.where(found, recalls, 0).sum(0), np.where(counts > 1, counts, 0))


def recall(
    truth: ClassIndices, probabilities: Probabilities, weights: Weights, of_class: int
) -> Values:
    """Share of a class's cases that have it as the likeliest: of two classes, the second's is the
    sensitivity at 0.5 and the first's the specificity. NaN without such cases.
    """
    own = truth == of_class
    hit = own & (probabilities.argmax(1) == truth)
    return ratio(weights[:, hit].sum(1), weights[:, own].sum(1))


def recall_at_other_recall(
    truth: ClassIndices, probabilities: Probabilities, weights: Weights, of_class: int, other: float
) -> Values:
    """Of two classes, the largest recall of one at a threshold where the other class has a recall
    of at least `other`: a point of the empirical ROC curve.

    Equal probabilities are on the same side of a threshold. Every replicate has its own threshold.
    NaN where a class has no cases.
    """
    score, own = probabilities[:, of_class], truth == of_class
    hits, alarms = (
        side[np.argsort(-score[side])] for side in map(np.flatnonzero, (own, truth != of_class))
    )
    found, false = _running(weights.T[hits]), _running(weights.T[alarms])
    ends = np.append(np.flatnonzero(np.diff(-score[alarms])), len(alarms) - 1)[: len(alarms)]
    reaches_other = false[ends + 1] <= (1 - other) * false[-1] + 1e-9
    # cases of the class above the first other score that must not be passed
    before = np.append(np.searchsorted(-score[hits], -score[alarms][ends], "left"), len(hits))
    most = found[before[reaches_other.sum(0)], np.arange(found.shape[1])]
    return np.where(false[-1] > 0, ratio(most, found[-1]), np.nan)
