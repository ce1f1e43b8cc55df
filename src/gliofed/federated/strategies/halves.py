"""What both halves of a strategy are given and have to give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.aggregation.merge import NO_FACTORS, ReadTensor
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.schedule import Schedule
from gliofed.federation_config import FederationConfig
from gliofed.models.network import without_frozen
from gliofed.study import Study
from gliofed.types import TensorsByKind, Update


@dataclass(frozen=True)
class ClientRound:
    """One round at one site.

    parameters: of the site's network, by name; they change while it trains. weights: of the round's
    model. server_state, site_state: tensors of the strategy by kind, from the request and from the
    site's round before; empty where it has none.
    """

    config: FederationConfig
    parameters: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    server_state: TensorsByKind
    site_state: TensorsByKind


class ClientHalf:
    """The site's half of a strategy; as it is, it adds nothing to local steps and sends weights."""

    def __init__(self, work: ClientRound) -> None:
        self.work = work

    def correct(self) -> None:
        """Change the parameters' gradients before a local step."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the update: the weights after the local steps."""
        return {k: p.detach().to("cpu") for k, p in self.work.parameters.items()}

    def extra(self) -> TensorsByKind:
        """What else is sent, by kind."""
        return {}

    def state(self) -> TensorsByKind:
        """What the site keeps for its next round, by kind."""
        return {}


@dataclass(frozen=True)
class ServerSetup:
    """A run at the server. weights, state: of the last commit. counts: site to its label counts."""

    study: Study
    schedule: Schedule
    weights: Mapping[str, Tensor]
    state: TensorsByKind
    counts: Mapping[str, LabelCounts]


class ServerHalf(ABC):
    """The server's half of a strategy: from the updates of a round to the next model."""

    def __init__(self, setup: ServerSetup) -> None:
        self.setup = setup
        self.weights: Mapping[str, Tensor] = setup.weights
        self.state: TensorsByKind = setup.state

    @property
    def trained(self) -> Mapping[str, Tensor]:
        """The weights of the parameters that are trained; updates have no other."""
        return without_frozen(self.weights, self.setup.study.frozen)

    @property
    def request_state(self) -> TensorsByKind:
        """The part of the state that sites need."""
        return {}

    @abstractmethod
    def add(self, update: Update, file: Path, factors: Mapping[str, float] = NO_FACTORS) -> None:
        """Take in one update that passed the gate; its tensors are read from `file`.

        `file` must stay as it is until the step. factors: kind of tensor
        ("": of the model) to what its change, or its gradient, is multiplied with, where that is
        not 1.
        """

    def add_sum(self, read: ReadTensor, cases: int, counts: LabelCounts) -> None:
        """Take in the sum of the updates of a round, in place of each by itself.

        read: from a parameter's name to float64 values. cases: of the batch. counts: of all
        training cases of the sites in the sum. Raises TypeError where the strategy needs every
        update; such a study is refused when it is read.
        """
        raise TypeError(f"{type(self).__name__} needs the update of every site")

    @abstractmethod
    def step(self, round_number: int, sites: Collection[str]) -> float | None:
        """Replace weights and state by the next ones; the gradient's norm, where there is one.

        sites: whose updates were added in this round.
        """


@dataclass(frozen=True)
class Strategy:
    """One federated method.

    takes_steps: whether sites train with an optimiser of their own; else a round is one gradient of
    each site's part of the joint batch. client, server: make the halves. initial: from the weights
    to the server's state before the first round. request, extra: kinds of tensors that a request,
    and an update, have beside the model's. source: where the method comes from.
    """

    id: str
    source: str
    takes_steps: bool
    server: Callable[[ServerSetup], ServerHalf]
    client: Callable[[ClientRound], ClientHalf] = ClientHalf
    initial: Callable[[Mapping[str, Tensor]], TensorsByKind] = lambda weights: {}
    request: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def zeros(*kinds: str) -> Callable[[Mapping[str, Tensor]], TensorsByKind]:
    """From weights to tensors of 0 of the same shapes, for each kind."""
    return lambda weights: {
        kind: {name: torch.zeros_like(t) for name, t in weights.items()} for kind in kinds
    }
