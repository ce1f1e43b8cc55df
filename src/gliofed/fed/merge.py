"""The weighted mean of updates, taken one at a time: memory does not grow with the sites.

The server then goes `server_lr` times as far as the mean (FedOpt with plain SGD at the server:
Reddi et al. 2021, Adaptive federated optimization, ICLR).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from gliofed.fed.blocks import blocks
from gliofed.fed.strategy import Strategy
from gliofed.nets.unet import task_of
from gliofed.types import Stat, Update


class RunningMerge:
    """Sums of weight x value in float64, so that one site alone is handed back bit for bit."""

    def __init__(
        self, model: Mapping[str, Tensor], strategy: Strategy, server_lr: float = 1.0
    ) -> None:
        self._model = model
        self._server_lr = server_lr
        self._strategy = strategy
        self._sums = {k: torch.zeros(v.shape, dtype=torch.float64) for k, v in model.items()}
        self._weights: dict[str, float] = defaultdict(float)
        self.stats: dict[str, Stat] = defaultdict(Stat)
        self.sites: list[str] = []

    def add(self, update: Update) -> None:
        """Take in one update that passed the gate. Keeps nothing of it but the sums."""
        for name, tensor in update.weights.items():
            task = task_of(name)
            weight = self._strategy.weight(update, task)
            for total, part in zip(blocks(self._sums[name]), blocks(tensor), strict=True):
                total.add_(part, alpha=weight)
            self._weights[name] += weight
        for name, stat in update.stats.items():
            self.stats[name] += stat
        self.sites.append(update.site)

    def result(self) -> dict[str, Tensor]:
        """The merged model; a parameter that no site weighed keeps its value.

        To be asked for once: the sums are let go one by one.
        """
        out = {}
        for name, own in self._model.items():
            weight, total = self._weights[name], self._sums.pop(name)
            merged = total.div_(weight) if weight > 0 else own
            if self._server_lr != 1:
                merged = own + self._server_lr * (merged - own)
            out[name] = merged.to(own.dtype)
        return out
