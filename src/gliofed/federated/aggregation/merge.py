"""The weighted mean of updates that lie on the disk, a tensor at a time: memory does not grow with
the sites, and holds no sum of a whole model.

Of the weights, the server then goes `server_lr` times as far as the mean (FedOpt with plain SGD at
the server: Reddi et al. 2021, Adaptive federated optimization, ICLR).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks
from gliofed.federated.aggregation.moments import is_moment
from gliofed.federated.aggregation.strategies import AggregationStrategy
from gliofed.federated.messages import load_tensor
from gliofed.models.network import task_of
from gliofed.types import Stat, Update


@dataclass(frozen=True)
class _UpdatePart:
    """One site's update: where its tensors lie, and what those of each task weigh."""

    answer: Path
    weights: Mapping[str, float]


class StreamingMean:
    """The mean of weight x value over sites, summed in float64, so that one site alone is handed
    back bit for bit."""

    def __init__(
        self, model: Mapping[str, Tensor], strategy: AggregationStrategy, server_lr: float = 1.0
    ) -> None:
        self._model = model
        self._tasks = {name: task_of(name) for name in model}
        self._server_lr = server_lr
        self._strategy = strategy
        self._parts: list[_UpdatePart] = []
        self.stats: dict[str, Stat] = defaultdict(Stat)

    def add(self, update: Update, answer: Path) -> None:
        """Take in one update that passed the gate. Keeps nothing of it but what it weighs and
        where it lies: the file `answer` stays as it is until there is a result."""
        tasks = {*self._tasks.values()}
        weights = {task: self._strategy.weight(update, task) for task in tasks}
        self._parts.append(_UpdatePart(answer, weights))
        for name, stat in update.stats.items():
            self.stats[name] += stat

    def result(self) -> dict[str, Tensor]:
        """The merged model; a parameter that no site weighed keeps its value."""
        return {name: self._merged(name, own) for name, own in self._model.items()}

    def _merged(self, name: str, own: Tensor) -> Tensor:
        total, weight = torch.zeros(own.shape, dtype=torch.float64), 0.0
        for part in self._parts:
            share = part.weights[self._tasks[name]]
            tensor = load_tensor(part.answer, name)
            for to, values in zip(blocks(total), blocks(tensor), strict=True):
                to.add_(values, alpha=share)
            weight += share
        if weight <= 0:
            return own
        merged = total.div_(weight)
        if self._server_lr != 1 and not is_moment(name):
            merged = own + self._server_lr * (merged - own)
        return merged.to(own.dtype)
