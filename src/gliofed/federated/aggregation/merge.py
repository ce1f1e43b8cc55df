"""The weighted mean of updates that lie on the disk, one tensor at a time.

Memory use does not grow with the number of sites: no sum of a whole model is held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks
from gliofed.federated.aggregation.moments import tensor_name
from gliofed.federated.aggregation.strategies import AggregationStrategy
from gliofed.federated.wire import load_tensor
from gliofed.models.network import task_of
from gliofed.types import OptimiserMoments, Stat, Update


@dataclass(frozen=True)
class _WeightedUpdate:
    """The file of one site's update, and the site's weight for each task."""

    file: Path
    weights: Mapping[str, float]


class StreamingMean:
    """The mean of weight x value over sites, summed in float64 in the order of adding.

    The mean of one site alone has that site's values bit for bit.
    """

    def __init__(
        self, model: Mapping[str, Tensor], strategy: AggregationStrategy, server_lr: float = 1.0
    ) -> None:
        self._model = model
        self._tasks = {name: task_of(name) for name in model}
        self._server_lr = server_lr
        self._strategy = strategy
        self._updates: list[_WeightedUpdate] = []
        self.stats: dict[str, Stat] = defaultdict(Stat)

    def add(self, update: Update, file: Path) -> None:
        """Take in one update that passed the gate.

        Only its weights in the mean and its path are kept: `file` must stay as it is until the
        result was taken.
        """
        tasks = {*self._tasks.values()}
        weights = {task: self._strategy.weight(update, task) for task in tasks}
        self._updates.append(_WeightedUpdate(file, weights))
        for name, stat in update.stats.items():
            self.stats[name] += stat

    def result(self) -> dict[str, Tensor]:
        """The merged model; a parameter that no site weighed keeps its value."""
        merged = {}
        for name, old in self._model.items():
            mean = self._mean(name, name, old)
            new = old if mean is None else self._strategy.server_step(old, mean, self._server_lr)
            merged[name] = new.to(old.dtype)
        return merged

    def merged_moments(self, before: OptimiserMoments) -> OptimiserMoments:
        """The sites' mean of each moment, whatever the server's learning rate."""
        return OptimiserMoments(
            **{
                kind: {name: self._mean_moment(name, kind, old) for name, old in moments.items()}
                for kind, moments in before.by_kind.items()
            }
        )

    def _mean_moment(self, parameter: str, kind: str, old: Tensor) -> Tensor:
        mean = self._mean(parameter, tensor_name(parameter, kind), old)
        return old if mean is None else mean.to(old.dtype)

    def _mean(self, parameter: str, name: str, old: Tensor) -> Tensor | None:
        """float64, of the tensor `name` in the updates; None where all weights are 0."""
        total, weight = torch.zeros(old.shape, dtype=torch.float64), 0.0
        for update in self._updates:
            share = update.weights[self._tasks[parameter]]
            tensor = load_tensor(update.file, name)
            for to, values in zip(blocks(total), blocks(tensor), strict=True):
                to.add_(values, alpha=share)
            weight += share
        return total.div_(weight) if weight > 0 else None
