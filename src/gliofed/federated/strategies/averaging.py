"""Averaging: the next model is the mean of the sites' models after local steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from gliofed.federated.aggregation.merge import NO_FACTORS, MergeRule, SiteMerge
from gliofed.federated.aggregation.robust import aggregation_named
from gliofed.federated.strategies.halves import ServerHalf, ServerSetup, Strategy
from gliofed.models.network import TRUNK_TASK
from gliofed.types import Update


def weight_by_cases(update: Update, task: str) -> float:
    """Every layer by the site's training cases."""
    return float(update.cases)


def weight_by_labels(update: Update, task: str) -> float:
    """A task's own layers by the cases labelled for it, the shared ones by all cases.

    A site with no label then neither dilutes nor moves the head.
    """
    return float(update.cases if task == TRUNK_TASK else update.labelled[task])


def one_vote(update: Update, task: str) -> float:
    """Every site as much as any other."""
    return 1.0


class MeanOfModels(ServerHalf):
    """The server's half: the study's mean of the models, and `server_lr` times the way to it."""

    weight = staticmethod(weight_by_labels)

    def __init__(self, setup: ServerSetup) -> None:
        super().__init__(setup)
        self.merge = self._new_merge()

    def _new_merge(self) -> SiteMerge:
        aggregation = aggregation_named(self.setup.study.federation.aggregation)
        return SiteMerge(self.trained, MergeRule(self.weight, aggregation, self.weights))

    def add(self, update: Update, file: Path, factors: Mapping[str, float] = NO_FACTORS) -> None:
        """Only the update's weight in the mean and its path are kept."""
        self.merge.add(update, file, factors)

    def step(self, round_number: int, sites: Collection[str]) -> float | None:
        """The next model; a parameter that no site weighed keeps its value."""
        new = dict(self.weights)
        for name, old in self.trained.items():
            mean = self.merge.value(name)
            if mean is not None:
                new[name] = self.parameter_step(name, old, mean).to(old.dtype)
        self.weights = new
        self.merge = self._new_merge()
        return None

    def parameter_step(self, name: str, old: Tensor, mean: Tensor) -> Tensor:
        """From the round's parameter and the sites' mean (float64) to the next one."""
        server_lr = self.setup.study.federation.server_lr
        return mean if server_lr == 1 else old + server_lr * (mean - old)


class MeanByCases(MeanOfModels):
    """The mean with one weight a site for all layers."""

    weight = staticmethod(weight_by_cases)


FEDAVG: Final = Strategy(
    id="fedavg",
    source="McMahan et al. 2017, Communication-efficient learning of deep networks (AISTATS)",
    takes_steps=True,
    server=MeanByCases,
)
LABEL_AWARE: Final = Strategy(
    id="label_aware",
    source="FedAvg with each task's own layers weighted by cases labelled for that task",
    takes_steps=True,
    server=MeanOfModels,
)
