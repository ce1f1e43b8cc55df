"""Synchronous steps: a round is one step of AdamW on the joint batch of all sites.

Each site sends the gradient of the loss, summed over its part of the batch. The server adds the
gradients, clips their sum and takes the step, so clipping, moments and learning rate are those of
pooled training. The sites keep nothing between rounds.

What one row weighs in the loss follows from the label counts of all sites
(`label_counts.row_weights`), so a sum is all that the server needs: a marker's head is divided by
the rows that have its label, the shared layers by those of each task. Where sites are missing from
a round, the sum is scaled up by the labelled cases of all over those of the sites that are there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from gliofed.federated.aggregation.merge import NO_FACTORS, MergeRule, ReadTensor, SiteMerge
from gliofed.federated.aggregation.robust import MEAN, aggregation_named
from gliofed.federated.compression import expanded_from
from gliofed.federated.label_counts import NO_CASES, LabelCounts
from gliofed.federated.strategies.averaging import one_vote
from gliofed.federated.strategies.halves import ClientHalf, ServerHalf, ServerSetup, Strategy
from gliofed.federated.strategies.site_means import SiteMeans, without_means
from gliofed.federated.wire import TensorFile
from gliofed.models.network import TRUNK_TASK, task_of
from gliofed.models.optimiser import (
    clipped_step,
    learning_rate,
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
)
from gliofed.types import Update


class GradientOfBatch(ClientHalf):
    """The site's half: the gradient of its part of the batch, which its network has computed."""

    def tensors(self) -> dict[str, Tensor]:
        """The gradient; 0 for parameters of tasks without a labelled row."""
        return {
            name: torch.zeros_like(p, device="cpu") if p.grad is None else p.grad.to("cpu")
            for name, p in self.work.parameters.items()
        }


class JointStep(ServerHalf):
    """The server's half: sum, clip, AdamW.

    With the aggregation "mean", the sum is that of the round's gradients. With a robust one it is
    the robust mean of the sites' running means (`SiteMeans`) times the rows of a batch.
    """

    def __init__(self, setup: ServerSetup) -> None:
        super().__init__(setup)
        # in one order, also after a resumption: the norm for clipping is summed in it
        self._parameters = {
            name: setup.weights[name].clone().requires_grad_() for name in sorted(self.trained)
        }
        self._optimiser = make_optimiser(self._parameters, setup.study.optimisation)
        load_optimiser_state(self._parameters, self._optimiser, without_means(setup.state))
        self._means = SiteMeans(setup.state)
        self._aggregation = aggregation_named(setup.study.federation.aggregation)
        self._publish()
        self._merge = self._new_merge()
        self._summed: LabelCounts | None = None

    def _new_merge(self) -> SiteMerge:
        return SiteMerge(self._parameters, MergeRule(one_vote, self._aggregation))

    def _publish(self) -> None:
        frozen = {k: t for k, t in self.setup.weights.items() if k not in self._parameters}
        self.weights = {**frozen, **{k: p.detach() for k, p in self._parameters.items()}}
        self.state = {**optimiser_state(self._parameters, self._optimiser), **self._means.state}

    def add(self, update: Update, file: Path, factors: Mapping[str, float] = NO_FACTORS) -> None:
        """Only the update's rows and its path are kept; an update without a case has no tensor."""
        if not update.cases:
            return
        if self._aggregation is MEAN:
            self._merge.add(update, file, factors)
            return
        opened = TensorFile(file)
        self._means.add(
            update.site,
            lambda name: expanded_from(opened, name),
            self._parameters,
            factors.get("", 1.0) / update.cases,
        )

    def add_sum(self, read: ReadTensor, cases: int, counts: LabelCounts) -> None:
        """As of `ServerHalf`."""
        self._summed = counts
        if cases:
            self._merge.add_values(read, dict.fromkeys(map(task_of, self._parameters), 1.0))

    def step(self, round_number: int, sites: Collection[str]) -> float | None:
        """One step; none where no site had a case of the batch."""
        self._add_means(sites)
        for name, parameter in self._parameters.items():
            mean = self._merge.value(name)
            if mean is not None:
                parameter.grad = mean.mul_(self._merge.weight(name)).to(parameter.dtype)
        self._merge = self._new_merge()
        if all(p.grad is None for p in self._parameters.values()):
            return None
        self._scale_up(sites)
        train = self.setup.study.optimisation
        lr = learning_rate(train, round_number, self.setup.schedule.rounds)
        norm = clipped_step(self._parameters, self._optimiser, lr, train.clip)
        self._optimiser.zero_grad(set_to_none=True)
        self._publish()
        return norm

    def _add_means(self, sites: Collection[str]) -> None:
        """Have the running means of `sites` merged, each as a mean over rows with a label.

        A site's weight is the number of such rows that it has in a batch on average.
        """
        for site in sorted(sites):
            mean, counts = self._means.of(site), self.setup.counts.get(site, NO_CASES)
            if mean is None:
                continue
            rows = {TRUNK_TASK: counts.cases, **counts.labelled}

            def a_row(
                name: str,
                mean: Mapping[str, Tensor] = mean,
                rows: Mapping[str, int] = rows,
            ) -> Tensor:
                return mean[name] * (rows[TRUNK_TASK] / rows[task_of(name)])

            batches = self.setup.schedule.batches
            self._merge.add_values(a_row, {task: n / batches for task, n in rows.items()})

    def _scale_up(self, sites: Collection[str]) -> None:
        counts, summed = self.setup.counts, self._summed
        everyone = sum(counts.values(), NO_CASES)
        there = sum((counts[s] for s in sites if s in counts), NO_CASES)
        if summed is not None:
            there, self._summed = summed, None
        if there == everyone:
            return
        total, present = _task_counts(everyone), _task_counts(there)
        for name, parameter in self._parameters.items():
            task = task_of(name)
            if parameter.grad is not None and present[task]:
                parameter.grad *= total[task] / present[task]


def _task_counts(counts: LabelCounts) -> dict[str, int]:
    """Task, or the shared layers, to the cases that train it."""
    return {TRUNK_TASK: counts.cases, **counts.labelled}


SYNCHRONOUS: Final = Strategy(
    id="synchronous",
    source="Chen et al. 2016, Revisiting distributed synchronous SGD (arXiv:1604.00981); FedSGD of "
    "McMahan et al. 2017 (AISTATS) with AdamW at the server",
    takes_steps=False,
    server=JointStep,
    client=GradientOfBatch,
)
