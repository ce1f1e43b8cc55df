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

from gliofed.federated.label_counts import NO_CASES, LabelCounts
from gliofed.federated.strategies.halves import ClientHalf, ServerHalf, ServerSetup, Strategy
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
    """The server's half: sum, clip, AdamW."""

    def __init__(self, setup: ServerSetup) -> None:
        super().__init__(setup)
        # in one order, also after a resumption: the norm for clipping is summed in it
        self._parameters = {
            name: setup.weights[name].clone().requires_grad_() for name in sorted(setup.weights)
        }
        self._optimiser = make_optimiser(self._parameters, setup.study.train)
        load_optimiser_state(self._parameters, self._optimiser, setup.state)
        self._publish()

    def _publish(self) -> None:
        self.weights = {k: p.detach() for k, p in self._parameters.items()}
        self.state = optimiser_state(self._parameters, self._optimiser)

    def add(self, update: Update, file: Path) -> None:
        """Add the gradient; the sum is in the order of adding."""
        for name, gradient in update.tensors.items():
            parameter = self._parameters[name]
            if parameter.grad is None:
                parameter.grad = gradient.clone()
            else:
                parameter.grad += gradient

    def step(self, round_number: int, sites: Collection[str]) -> float | None:
        """One step; none where no site had a case of the batch."""
        if all(p.grad is None for p in self._parameters.values()):
            return None
        self._scale_up(sites)
        train = self.setup.study.train
        lr = learning_rate(train, round_number, self.setup.schedule.rounds)
        norm = clipped_step(self._parameters, self._optimiser, lr, train.clip)
        self._optimiser.zero_grad(set_to_none=True)
        self._publish()
        return norm

    def _scale_up(self, sites: Collection[str]) -> None:
        counts = self.setup.counts
        if not counts.keys() - set(sites):
            return
        total, there = _task_counts(counts, counts), _task_counts(counts, sites)
        for name, parameter in self._parameters.items():
            task = task_of(name)
            if parameter.grad is not None and there[task]:
                parameter.grad *= total[task] / there[task]


def _task_counts(counts: Mapping[str, LabelCounts], sites: Collection[str]) -> dict[str, int]:
    """Task, or the shared layers, to the cases of `sites` that train it."""
    total = sum((counts[s] for s in sites if s in counts), NO_CASES)
    return {TRUNK_TASK: total.cases, **total.labelled}


SYNCHRONOUS: Final = Strategy(
    id="synchronous",
    source="Chen et al. 2016, Revisiting distributed synchronous SGD (arXiv:1604.00981); FedSGD of "
    "McMahan et al. 2017 (AISTATS) with AdamW at the server",
    takes_steps=False,
    server=JointStep,
    client=GradientOfBatch,
)
