"""All strategies by id. A new one is a file here and a line in `STRATEGIES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gliofed.errors import StudyError
from gliofed.federated.strategies.averaging import FEDAVG, LABEL_AWARE
from gliofed.federated.strategies.fedprox import FEDPROX
from gliofed.federated.strategies.halves import Strategy
from gliofed.federated.strategies.scaffold import SCAFFOLD
from gliofed.federated.strategies.server_optimisers import FEDADAM, FEDAVGM
from gliofed.federated.strategies.synchronous import SYNCHRONOUS

STRATEGIES: Final[Mapping[str, Strategy]] = {
    s.id: s for s in (SYNCHRONOUS, LABEL_AWARE, FEDAVG, FEDPROX, FEDAVGM, FEDADAM, SCAFFOLD)
}


def strategy_named(name: str) -> Strategy:
    """The row `name`. Raises StudyError where there is none."""
    if name not in STRATEGIES:
        raise StudyError(f"federation.method: {name!r} is none of {sorted(STRATEGIES)}")
    return STRATEGIES[name]
