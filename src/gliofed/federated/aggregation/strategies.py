"""Aggregation strategies, one row each: how updates of sites become the next model.

A strategy has two halves. The server's half is here: how much each site's update weighs, and the
step from the mean to the next model. A strategy whose clients add something to their local work
gets a field for it in `AggregationStrategy`; with today's strategies they add nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from gliofed.errors import StudyError
from gliofed.models.network import TRUNK_TASK
from gliofed.types import Update


def sgd_step(old: Tensor, mean: Tensor, server_lr: float) -> Tensor:
    """Go `server_lr` times as far as the mean; the mean itself where that is 1.

    FedOpt with plain SGD at the server (Reddi et al. 2021, Adaptive federated optimization, ICLR).
    """
    return mean if server_lr == 1 else old + server_lr * (mean - old)


@dataclass(frozen=True)
class AggregationStrategy:
    """One way of merging updates.

    weight: (update, task of a parameter) to the weight of the site in the mean, at least 0. A
    parameter that every site weighs 0 keeps the round's value. source: where it comes from.
    server_step: (parameter, mean of the sites, server learning rate) to the new parameter.
    """

    id: str
    weight: Callable[[Update, str], float]
    source: str
    server_step: Callable[[Tensor, Tensor, float], Tensor] = sgd_step


def _by_cases(update: Update, task: str) -> float:
    return float(update.cases)


def _by_labels(update: Update, task: str) -> float:
    return float(update.cases if task == TRUNK_TASK else update.labelled[task])


LABEL_AWARE: Final = AggregationStrategy(
    id="label_aware",
    weight=_by_labels,
    source="FedAvg with each task's own layers weighted by cases labelled for that task: a site "
    "with no label neither dilutes nor moves the head",
)
FEDAVG: Final = AggregationStrategy(
    id="fedavg",
    weight=_by_cases,
    source="McMahan et al. 2017, Communication-efficient learning of deep networks (AISTATS)",
)

STRATEGIES: Final[Mapping[str, AggregationStrategy]] = {s.id: s for s in (LABEL_AWARE, FEDAVG)}


def strategy_named(name: str) -> AggregationStrategy:
    """The row `name`. Raises StudyError where there is none."""
    if name not in STRATEGIES:
        raise StudyError(f"federation.strategy: {name!r} is none of {sorted(STRATEGIES)}")
    return STRATEGIES[name]
