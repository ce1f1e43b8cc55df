"""Telling classes apart: AUC and balanced accuracy, from class indices and probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Index = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def auc(truth: Index, probabilities: Probabilities) -> float | None:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counting half.

    truth: (n,) class indices; probabilities: (n, classes). Two classes: that of the second. More:
    the mean over classes of one against the rest, classes without cases or without rest left out.
    None where no class has both.
    """
    classes = probabilities.shape[1]
    picks = range(1, 2) if classes == 2 else range(classes)
    areas = [a for c in picks if (a := _binary_auc(truth == c, probabilities[:, c])) is not None]
    return float(np.mean(areas)) if areas else None


def _binary_auc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    p = int(positive.sum())
    n = len(positive) - p
    if p == 0 or n == 0:
        return None
    ranks = rankdata(score)
    return float((ranks[positive].sum() - p * (p + 1) / 2) / (p * n))


def balanced_accuracy(truth: Index, probabilities: Probabilities) -> float | None:
    """Mean recall of the likeliest class, over the classes that have cases.

    None where only one class has cases.
    """
    present = np.unique(truth)
    if len(present) < 2:
        return None
    said = probabilities.argmax(1)
    return float(np.mean([(said[truth == c] == c).mean() for c in present]))
