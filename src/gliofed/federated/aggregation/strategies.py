"""Strategies: how much each site's weights count, parameter by parameter. One row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from gliofed.errors import StudyError
from gliofed.models.network import TRUNK_TASK
from gliofed.types import Update


@dataclass(frozen=True)
class AggregationStrategy:
    """weight: (update, task of a parameter) to the site's weight in its mean, at least 0.

    A parameter that every site weighs 0 keeps the round's value.
    """

    id: str
    weight: Callable[[Update, str], float]
    source: str


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
