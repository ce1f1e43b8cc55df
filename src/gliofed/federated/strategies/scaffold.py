"""SCAFFOLD: control variates take out of a site's gradients what differs from those of all sites.

The paper's sites take plain SGD steps. Here they take AdamW steps, so a site's control variate is
the mean of its uncorrected gradients in the round (the paper's option I, along the local steps).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from gliofed.federated.aggregation.merge import NO_FACTORS, MergeRule, SiteMerge
from gliofed.federated.aggregation.robust import aggregation_named
from gliofed.federated.strategies.averaging import MeanOfModels, one_vote
from gliofed.federated.strategies.halves import (
    ClientHalf,
    ClientRound,
    ServerSetup,
    Strategy,
    zeros,
)
from gliofed.types import TensorsByKind, Update

CONTROL: Final = "control"


class ControlledSteps(ClientHalf):
    """The site's half: gradient - own control variate + that of all sites."""

    def __init__(self, work: ClientRound) -> None:
        super().__init__(work)
        before = work.site_state.get(CONTROL)
        self._sum = {k: torch.zeros_like(work.weights[k]) for k in work.parameters}
        self._before = before or {k: torch.zeros_like(v) for k, v in self._sum.items()}
        self._steps = 0

    def correct(self) -> None:
        """Record the gradient, then correct it; no step follows one that is not finite."""
        gradients = [p.grad for p in self.work.parameters.values() if p.grad is not None]
        if not all(bool(g.isfinite().all()) for g in gradients):
            return
        self._steps += 1
        every = self.work.server_state[CONTROL]
        for name, parameter in self.work.parameters.items():
            if parameter.grad is not None:
                self._sum[name] += parameter.grad.to("cpu")
                parameter.grad += (every[name] - self._before[name]).to(parameter.device)

    def _control(self) -> dict[str, Tensor]:
        if not self._steps:
            return dict(self._before)
        return {k: v / self._steps for k, v in self._sum.items()}

    def extra(self) -> TensorsByKind:
        """The change of the site's control variate."""
        return {CONTROL: {k: v - self._before[k] for k, v in self._control().items()}}

    def state(self) -> TensorsByKind:
        """The site's new control variate."""
        return {CONTROL: self._control()}


class ControlledMean(MeanOfModels):
    """The server's half: the mean of models, and the control variate of all sites."""

    def __init__(self, setup: ServerSetup) -> None:
        super().__init__(setup)
        self._controls = self._new_controls()

    def _new_controls(self) -> SiteMerge:
        aggregation = aggregation_named(self.setup.study.federation.aggregation)
        return SiteMerge(self.trained, MergeRule(one_vote, aggregation, kind=CONTROL))

    @property
    def request_state(self) -> TensorsByKind:
        """The control variate of all sites."""
        return {CONTROL: self.state[CONTROL]}

    def add(self, update: Update, file: Path, factors: Mapping[str, float] = NO_FACTORS) -> None:
        """As for the mean of models."""
        super().add(update, file, factors)
        self._controls.add(update, file, factors)

    def step(self, round_number: int, sites: Collection[str]) -> float | None:
        """The control variate moves by the sum of the sites' changes over the number of sites.

        The sum is the study's mean of them times how many they are.
        """
        everyone = max(len(self.setup.counts), len(sites))
        control = {}
        for name, old in self.state[CONTROL].items():
            change = self._controls.value(name)
            share = self._controls.weight(name) / everyone
            control[name] = old if change is None else (old + share * change).to(old.dtype)
        super().step(round_number, sites)
        self.state, self._controls = {CONTROL: control}, self._new_controls()
        return None


SCAFFOLD: Final = Strategy(
    id="scaffold",
    source="Karimireddy et al. 2020, SCAFFOLD: stochastic controlled averaging (ICML)",
    takes_steps=True,
    server=ControlledMean,
    client=ControlledSteps,
    initial=zeros(CONTROL),
    request=(CONTROL,),
    extra=(CONTROL,),
)
