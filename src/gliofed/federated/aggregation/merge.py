"""The updates of a round that lie on the disk, merged one block of one tensor at a time.

Memory use does not grow with the size of the model: no sum of a whole model is held.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks
from gliofed.federated.aggregation.robust import MEAN, Aggregation
from gliofed.federated.compression import expanded_from
from gliofed.federated.named_tensors import tensor_name
from gliofed.federated.wire import TensorFile
from gliofed.models.network import task_of
from gliofed.types import Update

UpdateWeight = Callable[[Update, str], float]
"""From an update and the task of a parameter to the site's weight in the mean, at least 0."""
ReadTensor = Callable[[str], Tensor]
"""From a parameter's name to a site's values of it."""
NO_FACTORS: Mapping[str, float] = {}


@dataclass(frozen=True)
class MergeRule:
    """What is merged, and how.

    weight: of a site. base: values from which a bounded update moves less far, and of which the
    changes are compared; None: 0. kind: of the update's tensors; "": those of the model.
    """

    weight: UpdateWeight
    aggregation: Aggregation = MEAN
    base: Mapping[str, Tensor] | None = None
    kind: str = ""


@dataclass(frozen=True)
class _SiteUpdate:
    """How one site's values are read, its weight by task, and the factor of its change."""

    read: ReadTensor
    weights: Mapping[str, float]
    factor: float


class _Opened:
    """A file of tensors that is opened when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def file(self) -> TensorFile:
        return TensorFile(self._path)


class SiteMerge:
    """Merges the values of sites in float64, in the order of adding.

    The merge of one site alone has that site's values bit for bit.
    """

    def __init__(self, model: Mapping[str, Tensor], rule: MergeRule) -> None:
        self._shapes = {name: t.shape for name, t in model.items()}
        self._tasks = {name: task_of(name) for name in model}
        self._rule = rule
        self._updates: list[_SiteUpdate] = []
        self._voters: dict[str, tuple[Sequence[_SiteUpdate], Tensor]] = {}

    def add(self, update: Update, file: Path, factors: Mapping[str, float] = NO_FACTORS) -> None:
        """Take in one update that passed the gate.

        factors: kind to what its change is multiplied with, where that is not 1. Only weights,
        factors and path are kept: `file` must stay as it is until the last value was taken.
        """
        kind, opened = self._rule.kind, _Opened(file)
        weights = {task: self._rule.weight(update, task) for task in {*self._tasks.values()}}
        self.add_values(
            lambda name: expanded_from(opened.file, tensor_name(name, kind) if kind else name),
            weights,
            factors.get(kind, 1.0),
        )

    def add_values(
        self, read: ReadTensor, weights: Mapping[str, float], factor: float = 1.0
    ) -> None:
        """Take in the values of one site. weights: by task."""
        self._updates.append(_SiteUpdate(read, weights, factor))

    def value(self, parameter: str) -> Tensor | None:
        """float64, of one parameter; None where no site has a value."""
        task = self._tasks[parameter]
        voters, weights = self._voters_of(task)
        if not voters:
            return None
        merged = torch.empty(self._shapes[parameter], dtype=torch.float64)
        sent = [blocks(u.read(parameter)) for u in voters]
        bases = self._base_blocks(parameter, len(sent[0]))
        for to, base, *parts in zip(blocks(merged), bases, *sent, strict=True):
            rows = [_site_value(u, p, base) for u, p in zip(voters, parts, strict=True)]
            to.copy_(self._rule.aggregation.combine(torch.stack(rows), weights))
        return merged

    def weight(self, parameter: str) -> float:
        """The weights of all sites that have a value of it."""
        task = self._tasks[parameter]
        return sum((u.weights[task] for u in self._voters_of(task)[0]), 0.0)

    def _base_blocks(self, parameter: str, number: int) -> Sequence[Tensor | None]:
        base = self._rule.base
        return [None] * number if base is None else blocks(base[parameter])

    def _voters_of(self, task: str) -> tuple[Sequence[_SiteUpdate], Tensor]:
        """The sites that have a value for a task, and their weights in the merge."""
        if task not in self._voters:
            voters = [u for u in self._updates if u.weights[task] > 0]
            weights = torch.tensor([u.weights[task] for u in voters], dtype=torch.float64)
            reweigh = self._rule.aggregation.reweigh
            if reweigh is not None and voters:
                weights = reweigh(self._products(task, voters), weights)
            self._voters[task] = voters, weights
        return self._voters[task]

    def _products(self, task: str, voters: Sequence[_SiteUpdate]) -> Tensor:
        """(m, m): the inner products of the sites' changes of all parameters of a task."""
        products = torch.zeros(len(voters), len(voters), dtype=torch.float64)
        for name in (n for n, t in self._tasks.items() if t == task):
            sent = [blocks(u.read(name)) for u in voters]
            for base, *parts in zip(self._base_blocks(name, len(sent[0])), *sent, strict=True):
                values = [_site_value(u, p, base) for u, p in zip(voters, parts, strict=True)]
                rows = torch.stack(values if base is None else [v - base for v in values])
                products += rows @ rows.T
        return products


def _site_value(update: _SiteUpdate, sent: Tensor, base: Tensor | None) -> Tensor:
    value, factor = sent.to(torch.float64), update.factor
    if factor == 1:
        return value
    return value * factor if base is None else base + factor * (value - base)
