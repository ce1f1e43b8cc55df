"""The round loop, the server's half: it sees weights and counts, never an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from gliofed.errors import QuorumError, UpdateError
from gliofed.fed.checkpoint import Committed, commit, last_committed
from gliofed.fed.counts import NO_CASES, Counts, class_weights
from gliofed.fed.gate import Gate, check_counts
from gliofed.fed.merge import RunningMerge
from gliofed.fed.strategy import strategy_named
from gliofed.fed.wire import Task, pack_task
from gliofed.study import Study
from gliofed.types import RoundPoint


@dataclass(frozen=True)
class Reply:
    """What came back from one site: its bytes, or why there are none."""

    site: str
    data: bytes | None
    failure: str = ""


class Engine(Protocol):
    """Carries one task to every site and yields the replies, ordered by site name."""

    def ask(self, task: bytes) -> Iterator[Reply]:
        """Send `task`; one reply a site, each asked for only when the last has been used."""
        ...


def run_rounds(
    engine: Engine,
    initial: Mapping[str, Tensor],
    study: Study,
    run: str,
    folder: Path,
    on_round: Callable[[RoundPoint], None] | None = None,
) -> Committed:
    """Train for `study.train.rounds` rounds, going on from the last committed one in `folder`.

    Raises QuorumError where fewer than `federation.quorum` updates of a round can be merged; the
    rounds before it stay committed.
    """
    state = last_committed(folder, run) or Committed(run, 0, initial, ())
    if state.rounds >= study.train.rounds:
        return state
    weights = class_weights(_counts(engine, study, run))
    while state.rounds < study.train.rounds:
        task = Task("train", run, state.rounds, state.weights, weights)
        state = _round(engine, study, state, task)
        commit(folder, state)
        if on_round is not None:
            on_round(state.history[-1])
    return state


def _counts(engine: Engine, study: Study, run: str) -> Counts:
    total = NO_CASES
    refused: dict[str, str] = {}
    accepted = 0
    for reply in engine.ask(pack_task(Task("count", run, -1, {}, {}))):
        try:
            total += check_counts(reply.site, run, _payload(reply), study.federation)
            accepted += 1
        except UpdateError as error:
            refused[reply.site] = str(error)
    _require_quorum(accepted, study, "the count before the first round", refused)
    return total


def _round(engine: Engine, study: Study, state: Committed, task: Task) -> Committed:
    started = time.monotonic()
    rules = study.federation
    gate = Gate(task.run, task.round, task.weights, rules)
    merge = RunningMerge(task.weights, strategy_named(rules.strategy), rules.server_lr)
    refused: dict[str, str] = {}
    received = 0
    for reply in engine.ask(pack_task(task)):
        try:
            data = _payload(reply)
            received += len(data)
            merge.add(gate.check(reply.site, data))
        except UpdateError as error:
            refused[reply.site] = str(error)
    _require_quorum(len(merge.sites), study, f"round {task.round}", refused)
    means = {k: m for k, s in merge.stats.items() if (m := s.mean) is not None}
    point = RoundPoint(
        round=task.round,
        losses={k: v for k, v in means.items() if k not in ("dice", "skipped")},
        dice=means.get("dice"),
        seconds=time.monotonic() - started,
        bytes_up=received,
        refused=refused,
    )
    return Committed(task.run, task.round + 1, merge.result(), (*state.history, point))


def _payload(reply: Reply) -> bytes:
    if reply.data is None:
        raise UpdateError(f"site {reply.site}: no answer: {reply.failure}")
    return reply.data


def _require_quorum(accepted: int, study: Study, when: str, refused: Mapping[str, str]) -> None:
    if accepted < study.federation.quorum:
        why = "; ".join(refused.values()) or "no site answered"
        raise QuorumError(
            f"{when}: {accepted} of at least {study.federation.quorum} answers could be used "
            f"({why}); earlier rounds are kept, start again once the sites are well"
        )
