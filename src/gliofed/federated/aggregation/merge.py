"""The weighted mean of updates that lie on the disk, one tensor at a time.

Memory use does not grow with the number of sites: no sum of a whole model is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks
from gliofed.federated.wire import load_tensor
from gliofed.models.network import task_of
from gliofed.types import Update

UpdateWeight = Callable[[Update, str], float]
"""From an update and the task of a parameter to the site's weight in the mean, at least 0."""


@dataclass(frozen=True)
class _WeightedUpdate:
    """The file of one site's update, and the site's weight for each task."""

    file: Path
    weights: Mapping[str, float]


class StreamingMean:
    """The mean of weight x value over sites, summed in float64 in the order of adding.

    The mean of one site alone has that site's values bit for bit.
    """

    def __init__(self, model: Mapping[str, Tensor], weight: UpdateWeight) -> None:
        self._shapes = {name: t.shape for name, t in model.items()}
        self._tasks = {name: task_of(name) for name in model}
        self._weight = weight
        self._updates: list[_WeightedUpdate] = []

    def add(self, update: Update, file: Path) -> None:
        """Take in one update that passed the gate.

        Only its weights in the mean and its path are kept: `file` must stay as it is until the
        last mean was taken.
        """
        tasks = {*self._tasks.values()}
        weights = {task: self._weight(update, task) for task in tasks}
        self._updates.append(_WeightedUpdate(file, weights))

    def mean(self, parameter: str) -> Tensor | None:
        """float64, of one parameter; None where all weights are 0."""
        total, weight = torch.zeros(self._shapes[parameter], dtype=torch.float64), 0.0
        for update in self._updates:
            share = update.weights[self._tasks[parameter]]
            tensor = load_tensor(update.file, parameter)
            for to, values in zip(blocks(total), blocks(tensor), strict=True):
                to.add_(values, alpha=share)
            weight += share
        return total.div_(weight) if weight > 0 else None
