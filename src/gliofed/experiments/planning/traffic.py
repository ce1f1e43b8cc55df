"""Bytes between hospitals and server while a federated model is trained.

The size of every kind of message is that of real ones, which a short rehearsal has sent with the
study's own network; how many there are follows from the study.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gliofed.experiments.model_runs import ModelRun
from gliofed.federated.privacy.slot import SLOTS
from gliofed.federated.schedule import Schedule
from gliofed.federated.server.exchange import Engine, SiteReply
from gliofed.federated.strategies.table import strategy_named
from gliofed.federated.wire import read_note
from gliofed.study import Study
from gliofed.training.order import generator, site_batches

_TRAIN: Final = "train"
_OF_AGREEMENTS: Final = ("keys", "shares")


@dataclass(frozen=True)
class Exchange:
    """One request to one hospital. request, response: bytes. empty: whether the hospital had no
    case of the batch, and so needed no tensor of the request."""

    kind: str
    site: str
    request: int
    response: int
    empty: bool


@dataclass
class RecordingEngine:
    """Passes requests on, and records the size of every message."""

    engine: Engine
    exchanges: list[Exchange] = field(default_factory=list)

    def send(self, request: Path) -> Iterator[SiteReply]:
        """As of `Engine`."""
        kind, size = read_note(request)["kind"], request.stat().st_size
        for reply in self.engine.send(request):
            if reply.response is not None:
                empty = read_note(reply.response).get("cases", 1) == 0
                sent = reply.response.stat().st_size
                self.exchanges.append(Exchange(kind, reply.site, size, sent, empty))
            yield reply


@dataclass(frozen=True)
class Traffic:
    """Of one trained model. down: from the server to all hospitals. up: from all of them. rounds:
    of the training. updates: gradients or weights that hospitals send in all rounds."""

    rounds: int
    updates: int
    down: int
    up: int

    @property
    def total(self) -> int:
        """Both ways."""
        return self.down + self.up

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.rounds + other.rounds,
            self.updates + other.updates,
            self.down + other.down,
            self.up + other.up,
        )


NO_TRAFFIC: Final = Traffic(0, 0, 0, 0)


def updates_of(study: Study, run: ModelRun, schedule: Schedule, least: int = 1) -> int:
    """How many updates with tensors the hospitals of a federated run send in all rounds.

    With "synchronous" a hospital without a case of a batch sends none. least: fewest cases of a
    hospital in a batch (`SitePolicy.min_batch`). A batch without any label or mask counts too.
    """
    every = schedule.rounds * len(run.sites)
    federation = study.federation
    alike = strategy_named(federation.method).takes_steps or federation.privacy != "none"
    if alike or study.privacy is not None:
        return every
    passes = range(math.ceil(schedule.rounds / schedule.batches))
    return sum(
        sum(map(bool, _drawn(run.seed, site, len(cases), (schedule.batches, number, least))))
        for number in passes
        for site, cases in run.sites.items()
    )


def _drawn(seed: int, site: str, cases: int, part: tuple[int, int, int]) -> Iterable[object]:
    batches, number, least = part
    return site_batches(cases, batches, generator(seed, f"order/{site}", number), least)


def training_traffic(
    exchanges: Iterable[Exchange], sites: int, schedule: Schedule, updates: int
) -> Traffic:
    """All bytes of one training.

    exchanges: of a rehearsal. sites: of the run. updates: as of `updates_of`. A hospital without a
    case of a batch downloads no tensor. One start of the server is counted.
    """
    sizes = _sizes(exchanges)
    empty = schedule.rounds * sites - updates
    agreements = math.ceil((schedule.rounds + 1) / SLOTS) * sites
    times: Mapping[str, int] = {
        _TRAIN: updates,
        f"{_TRAIN} empty": empty,
        "count": sites,
        "unmask": (schedule.rounds + 1) * sites,
        **dict.fromkeys(_OF_AGREEMENTS, agreements),
    }
    down = sum(sizes[kind][0] * times[kind] for kind in sizes)
    up = sum(sizes[kind][1] * times[kind] for kind in sizes)
    return Traffic(schedule.rounds, updates, round(down), round(up))


def _sizes(exchanges: Iterable[Exchange]) -> Mapping[str, tuple[float, float]]:
    """Kind to the bytes of a request that is downloaded, and of a response: medians."""
    found: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        found.setdefault(exchange.kind + " empty" * exchange.empty, []).append(exchange)
    return {
        kind: (
            0.0 if kind.endswith(" empty") else statistics.median(e.request for e in same),
            statistics.median(e.response for e in same),
        )
        for kind, same in found.items()
    }
