"""The counts and statistics of a site as integers, so that they can be summed in secret.

| what              | integers                                                       |
|-------------------|----------------------------------------------------------------|
| check             | `CHECKS` of 0, which are 0 in the sum where all masks cancel   |
| cases of a batch  | 1                                                              |
| training cases    | cases, masks, and one a class of each marker, of the whole site|
| statistics        | sum and weight of each, in units of 2^-20                      |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.federated.label_counts import NO_CASES, LabelCounts
from gliofed.federated.message_table import MOST_CASES, STATISTICS
from gliofed.markers import MARKERS
from gliofed.types import Stat

CHECKS: Final = 4
_UNIT: Final = 2.0**20
_LARGEST: Final = 2.0**36
"""Of a statistic: sums of those of all sites stay within 63 bits."""
_CLASSES: Final = tuple(len(m.classes) for m in MARKERS)
SIZE: Final = CHECKS + 3 + sum(_CLASSES) + 2 * len(STATISTICS)


@dataclass(frozen=True)
class Figures:
    """batch: cases behind a gradient. counts: of all training cases. stats: of the round."""

    counts: LabelCounts
    batch: int = 0
    stats: Mapping[str, Stat] = field(default_factory=dict)

    def encoded(self) -> Tensor:
        """(`SIZE`,) int64. Raises UpdateError for a statistic that is not finite or too large."""
        counts = self.counts
        values = [0] * CHECKS + [self.batch, counts.cases, counts.masks]
        for marker in MARKERS:
            values += counts.classes[marker.id]
        for name in STATISTICS:
            stat = self.stats.get(name, Stat())
            for number in (stat.sum, stat.weight):
                if not abs(number) <= _LARGEST:
                    raise UpdateError(f"the statistic {name} is {number}, at most {_LARGEST:g}")
                values.append(round(number * _UNIT))
        return torch.tensor(values, dtype=torch.int64)


NO_FIGURES: Final = Figures(NO_CASES)


def decode_figures(encoded: Tensor) -> Figures:
    """The figures of a sum. Raises UpdateError where they are no sum of sites' figures."""
    values = iter(encoded.tolist())
    checks = [next(values) for _ in range(CHECKS)]
    if any(checks):
        raise UpdateError("the masks of its sites do not cancel")
    batch, cases, masks = (next(values) for _ in range(3))
    classes = {m.id: tuple(next(values) for _ in m.classes) for m in MARKERS}
    numbers = [n for own in classes.values() for n in own]
    if not all(0 <= n <= MOST_CASES for n in (batch, cases, masks, *numbers)):
        raise UpdateError("a count of it is negative or too large")
    counts = LabelCounts(cases, masks, classes)
    if any(n > cases for n in counts.labelled.values()):
        raise UpdateError("it has more labels than cases")
    stats = {name: Stat(next(values) / _UNIT, next(values) / _UNIT) for name in STATISTICS}
    if any(stat.weight < 0 or not math.isfinite(stat.sum) for stat in stats.values()):
        raise UpdateError("a statistic of it has a weight below 0")
    return Figures(counts, batch, {k: s for k, s in stats.items() if s != Stat()})
