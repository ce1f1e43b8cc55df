"""FedAvgM and FedAdam: the sites' mean change as a gradient for an optimiser at the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from gliofed.federated.strategies.averaging import MeanOfModels
from gliofed.federated.strategies.halves import Strategy, zeros
from gliofed.types import TensorsByKind

MOMENTUM: Final = 0.9
BETA_2: Final = 0.99
TAU: Final = 1e-3
"""Degree of adaptivity: the smallest divisor of a step."""


class MomentumStep(MeanOfModels):
    """momentum = 0.9 momentum + change; the model moves by `server_lr` x momentum."""

    def parameter_step(self, name: str, old: Tensor, mean: Tensor) -> Tensor:
        """The next parameter; its momentum is replaced too."""
        momentum = MOMENTUM * self.state["momentum"][name] + (mean - old)
        self.state = _with(self.state, "momentum", name, momentum)
        return old + self.setup.study.federation.server_lr * momentum


class AdamStep(MeanOfModels):
    """Adam without bias correction, as in the paper's algorithm 2."""

    def parameter_step(self, name: str, old: Tensor, mean: Tensor) -> Tensor:
        """The next parameter; both its moments are replaced too."""
        change = mean - old
        first = MOMENTUM * self.state["exp_avg"][name] + (1 - MOMENTUM) * change
        second = BETA_2 * self.state["exp_avg_sq"][name] + (1 - BETA_2) * change.square()
        self.state = _with(self.state, "exp_avg", name, first)
        self.state = _with(self.state, "exp_avg_sq", name, second)
        return old + self.setup.study.federation.server_lr * first / (second.sqrt() + TAU)


def _with(state: TensorsByKind, kind: str, name: str, tensor: Tensor) -> TensorsByKind:
    return {**state, kind: {**state[kind], name: tensor.to(torch.float32)}}


def _initial_moments(weights: Mapping[str, Tensor]) -> TensorsByKind:
    """Moments before the first round: 0, and tau squared, the least that the paper allows."""
    return {
        "exp_avg": {name: torch.zeros_like(t) for name, t in weights.items()},
        "exp_avg_sq": {name: torch.full_like(t, TAU**2) for name, t in weights.items()},
    }


_SOURCE: Final = "Reddi et al. 2021, Adaptive federated optimization (ICLR)"
FEDAVGM: Final = Strategy(
    id="fedavgm",
    source=f"Hsu et al. 2019 (arXiv:1909.06335); {_SOURCE}",
    takes_steps=True,
    server=MomentumStep,
    initial=zeros("momentum"),
)
FEDADAM: Final = Strategy(
    id="fedadam",
    source=_SOURCE,
    takes_steps=True,
    server=AdamStep,
    initial=_initial_moments,
)
