"""Label inference: how many patients of each class are behind the gradient of a head's last bias.

For one patient of class k this gradient is w_k (p - e_k): the predicted probabilities less 1 for
the true class, times the class's weight. Its one negative entry is the label (Zhao et al. 2020,
iDLG, arXiv:2001.02610). For a sum over patients, the counts are searched whose expected gradient is
nearest (Wainakh et al. 2022, User-level label leakage from gradients, PoPETs 2022:227).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.intervals.analytic import wilson_bounds
from gliofed.evaluation.intervals.bootstrap import patient_resamples, percentile_interval, ratio

Array = NDArray[np.float64]
REPLICATES: Final = 2000


@dataclass(frozen=True)
class KnownHead:
    """What the server knows of a head. weights: (classes,), of one row of each class in the loss.
    probabilities: (classes, classes), mean prediction for patients of each class, as from scans of
    its own. smoothing: of the labels in the loss."""

    weights: Array
    probabilities: Array
    smoothing: float = 0.0

    def expected(self) -> Array:
        """(classes, classes): the expected gradient of one patient of each class."""
        count = len(self.weights)
        target = np.eye(count) * (1 - self.smoothing) + self.smoothing / count
        gradients: Array = self.weights[:, None] * (self.probabilities - target)
        return gradients


def inferred_counts(gradient: Array, head: KnownHead, labelled: int) -> tuple[int, ...]:
    """The number of patients of each class behind a gradient (classes,).

    labelled: how many have a label; the attacker is given it. A class with a negative entry has at
    least one patient, since no other class can make it negative.
    """
    needed = gradient < 0 if labelled else np.zeros(len(gradient), bool)
    every = np.array(list(_compositions(labelled, len(gradient))))
    possible = every[(every[:, needed] > 0).all(1)]
    if not len(possible):  # noise has made more entries negative than there are patients
        possible = every
    distances = ((possible @ head.expected() - gradient) ** 2).sum(1)
    return tuple(int(n) for n in possible[distances.argmin()])


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """Every way to write `total` as an ordered sum of `parts` numbers from 0."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def apportioned(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """`total` patients given to classes in proportion to `shares`, by largest remainders.

    >>> apportioned([5, 3, 2], 4)
    (2, 1, 1)
    """
    exact = np.array(shares, float) / max(sum(shares), 1e-12) * total
    counts = np.floor(exact + 1e-9).astype(int)
    for index in np.argsort(counts - exact, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return tuple(int(n) for n in counts)


@dataclass(frozen=True)
class GroupHits:
    """hits, guessed: patients of one group whose label is right, by the attack and by a guess from
    the site's label counts alone. labelled: of the group."""

    hits: int
    guessed: int
    labelled: int


def group_hits(
    inferred: Sequence[int], site_counts: Sequence[float], truth: Sequence[int]
) -> GroupHits:
    """Compare counts of classes; patients of a group are not told apart."""
    total = sum(truth)
    return GroupHits(
        _common(inferred, truth), _common(apportioned(site_counts, total), truth), total
    )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(min(a, b) for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class Share:
    """A share of patients with its 95 % interval; None without a patient."""

    value: float | None
    low: float | None
    high: float | None


def share_right(hits: Sequence[int], labelled: Sequence[int]) -> Share:
    """The share of labelled patients whose label is right, groups resampled as wholes.

    Where all or none are right, or each group is one patient, the interval is Wilson's of the
    number of groups.
    """
    total = sum(labelled)
    if not total:
        return Share(None, None, None)
    value = sum(hits) / total
    if value in (0.0, 1.0) or max(labelled) == 1:
        groups = sum(n > 0 for n in labelled)
        return Share(value, *wilson_bounds(value * groups, groups))
    weights = patient_resamples([f"group {i}" for i in range(len(hits))], REPLICATES)
    bounds = percentile_interval(ratio(weights @ np.array(hits), weights @ np.array(labelled)))
    return Share(value, bounds.low, bounds.high)
