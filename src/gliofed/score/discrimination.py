"""Telling classes apart: AUC and balanced accuracy, from class indices and probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.score.intervals import Values, Weights, ratio

Index = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def auc(truth: Index, probabilities: Probabilities, weights: Weights) -> Values:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counting half.

    truth: (n,) class indices; probabilities: (n, classes); weights: (replicates, n). Two classes:
    that of the second. More: the mean over classes of one against the rest (Hand & Till's first
    form), classes without cases or without rest left out. NaN where no class has both.
    """
    classes = probabilities.shape[1]
    picks = range(1, 2) if classes == 2 else range(classes)
    areas = np.stack([_binary_auc(truth == c, probabilities[:, c], weights) for c in picks])
    found = np.isfinite(areas)
    return ratio(np.where(found, areas, 0).sum(0), found.sum(0))


def _binary_auc(positive: NDArray[np.bool_], score: Values, weights: Weights) -> Values:
    above, below = weights[:, positive], weights[:, ~positive]
    gap = score[positive][:, None] - score[~positive][None, :]
    wins = (np.sign(gap) + 1) / 2
    return ratio(((above @ wins) * below).sum(1), above.sum(1) * below.sum(1))


def balanced_accuracy(truth: Index, probabilities: Probabilities, weights: Weights) -> Values:
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
