"""How the values of several sites become one: the mean, and means that few sites cannot move far.

A row works on the values that the sites have for one block of parameters. The coordinate-wise ones
give every site one vote, as in their paper; the geometric median weighs sites as the mean does.
With two sites there is no majority, and every row but the first gives their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gliofed.errors import StudyError

TRIMMED: Final = 0.2
"""Yin's beta: the fraction of sites that is dropped at either end, rounded up."""
_ITERATIONS: Final = 100
_SMOOTHING: Final = 1e-6
"""Pillutla's nu, as a fraction of the longest update: the least distance that is divided by."""


@dataclass(frozen=True)
class Aggregation:
    """One way to aggregate.

    combine: from values (m sites, n) and weights (m,), float64, to (n,). reweigh: from the inner
    products of the sites' changes of a task (m, m) and their weights (m,) to other weights; None
    where the weights stay. source: where it comes from.
    """

    id: str
    source: str
    combine: Callable[[Tensor, Tensor], Tensor]
    reweigh: Callable[[Tensor, Tensor], Tensor] | None = None


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Summed in the order of sites, so that equal inputs give equal bits."""
    total = torch.zeros_like(values[0])
    for row, weight in zip(values, weights.tolist(), strict=True):
        total.add_(row, alpha=weight)
    return total.div_(float(weights.sum()))


def dropped(sites: int) -> int:
    """Values that the trimmed mean drops at either end; some are always left.

    >>> [dropped(m) for m in (1, 2, 3, 5, 6, 7)]
    [0, 0, 1, 1, 2, 2]
    """
    return min(math.ceil(TRIMMED * sites), (sites - 1) // 2)


def trimmed_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of each coordinate without its least and greatest values."""
    return _without_ends(values, dropped(len(values)))


def median(values: Tensor, weights: Tensor) -> Tensor:
    """The median of each coordinate; of an even number of sites the mean of the middle two."""
    return _without_ends(values, (len(values) - 1) // 2)


def _without_ends(values: Tensor, drop: int) -> Tensor:
    return values.sort(dim=0).values[drop : len(values) - drop].mean(dim=0)


def geometric_weights(products: Tensor, weights: Tensor) -> Tensor:
    """Weights with which the mean is the smoothed geometric median, by Weiszfeld's iteration."""
    start = weights / weights.sum()
    if len(weights) <= 2:
        return start
    least = max(_SMOOTHING * math.sqrt(float(products.diagonal().max())), 1e-300)
    found = start
    for _ in range(_ITERATIONS):
        squares = products.diagonal() - 2 * products @ found + found @ products @ found
        found = start / squares.clamp(min=0).sqrt().clamp(min=least)
        found = found / found.sum()
    return found


_YIN: Final = "Yin et al. 2018, Byzantine-robust distributed learning (ICML)"
MEAN: Final = Aggregation("mean", "McMahan et al. 2017 (AISTATS)", weighted_mean)
AGGREGATIONS: Final[Mapping[str, Aggregation]] = {
    a.id: a
    for a in (
        MEAN,
        Aggregation("trimmed_mean", f"{_YIN}, coordinate-wise", trimmed_mean),
        Aggregation("median", f"{_YIN}, coordinate-wise", median),
        Aggregation(
            "geometric_median",
            "Pillutla et al. 2022, Robust aggregation for federated learning (IEEE TSP 70:1142)",
            weighted_mean,
            geometric_weights,
        ),
    )
}


def aggregation_named(name: str) -> Aggregation:
    """The row `name`. Raises StudyError where there is none."""
    if name not in AGGREGATIONS:
        raise StudyError(f"federation.aggregation: {name!r} is none of {sorted(AGGREGATIONS)}")
    return AGGREGATIONS[name]
