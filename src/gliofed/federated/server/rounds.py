"""The round loop of the server, which receives weights or gradients and counts, never an image."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from gliofed.federated.checkpoint import CommittedRound, last_committed
from gliofed.federated.checkpoint import commit as write_commit
from gliofed.federated.label_counts import NO_CASES, class_weights
from gliofed.federated.messages import TrainingRequest, new_nonce
from gliofed.federated.privacy.table import mechanism_named
from gliofed.federated.schedule import Schedule, make_schedule
from gliofed.federated.server.exchange import Engine
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.updates import ReceivedRound, RoundUpdates
from gliofed.federated.strategies.halves import ServerHalf, ServerSetup
from gliofed.federated.strategies.table import strategy_named
from gliofed.models.network import build_net, without_frozen
from gliofed.types import RoundPoint, Stat


def run_rounds(
    engine: Engine,
    run: FederatedRun,
    on_commit: Callable[[CommittedRound], None] | None = None,
    should_stop: Callable[[int], bool] = lambda done: False,
    on_start: Callable[[CommittedRound], None] | None = None,
) -> CommittedRound:
    """Train for all rounds of the study, continuing from the last committed one.

    on_commit: called after each commit. should_stop: called before each round with the number of
    rounds that this call has made; where it returns True, the rounds so far are committed and the
    rest is left to a later call. on_start: called once the sites are counted. Raises QuorumError
    where fewer than `federation.quorum` updates of a round can be merged; the commits before it
    stay.
    """
    state = last_committed(run.folder, run.run) or _initial_state(run)
    if state.complete:
        return state
    updates = mechanism_named(run.study.federation.privacy).server(engine, run)
    state = _with_counts(updates, run, state)
    if on_start is not None:
        on_start(state)
    rounds = _Rounds(updates, run, state)
    while not rounds.state.complete:
        stop = should_stop(rounds.done)
        if rounds.uncommitted and (stop or rounds.commit_is_due):
            rounds.commit()
            if on_commit is not None:
                on_commit(rounds.state)
        if stop or rounds.state.complete:
            break
        rounds.make_round()
    return rounds.state


def _initial_state(run: FederatedRun) -> CommittedRound:
    study = run.study
    weights = run.initial() if run.initial else build_net(study.net, run.seed).state_dict()
    trained = without_frozen(weights, study.frozen)
    state = strategy_named(study.federation.method).initial(trained)
    return CommittedRound(run.run, 0, weights, (), state)


def _with_counts(updates: RoundUpdates, run: FederatedRun, state: CommittedRound) -> CommittedRound:
    """The state with the counts of the sites that are there now, and with the schedule.

    The schedule is that of the first counts of the run.
    """
    counts = updates.count(state.counts)
    total = sum((c.cases for c in counts.values()), 0)
    schedule = state.schedule or make_schedule(run.study, total)
    return dataclasses.replace(state, schedule=schedule, counts=counts)


@dataclass
class _Interval:
    """What happened in the rounds since the last commit."""

    rounds: int = 0
    seconds: float = 0.0
    received: int = 0
    stats: dict[str, Stat] = field(default_factory=lambda: defaultdict(Stat))
    refused: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, Stat] = field(default_factory=lambda: defaultdict(Stat))
    bounded: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, received: ReceivedRound, seconds: float) -> None:
        """Count one more round."""
        self.rounds += 1
        self.seconds += seconds
        self.received += received.received
        for site, own in received.seconds.items():
            self.answered[site] += Stat(own, 1)
            self.bounded[site] += site in received.bounded
        for name, stat in received.stats.items():
            self.stats[name] += stat
        for site, why in received.failures.items():
            self.refused[site].append(why)

    def point(self, last_round: int) -> RoundPoint:
        """The point of the history for these rounds."""
        return dataclasses.replace(
            RoundPoint.of_stats(last_round, self.rounds, self.stats, self.seconds),
            bytes_up=self.received,
            refused={site: self._reason(why) for site, why in self.refused.items()},
            answered={s: t.mean for s, t in self.answered.items() if t.mean is not None},
            merged={s: int(t.weight) for s, t in self.answered.items()},
            bounded={s: n for s, n in self.bounded.items() if n},
        )

    def _reason(self, why: list[str]) -> str:
        if self.rounds == 1:
            return why[-1]
        return f"{why[-1]} ({len(why)} of {self.rounds} rounds)"


class _Rounds:
    """The rounds of one run from its last commit on."""

    def __init__(self, updates: RoundUpdates, run: FederatedRun, state: CommittedRound) -> None:
        self._updates, self._run, self.state = updates, run, state
        self._schedule = _schedule_of(state)
        self._total = sum(state.counts.values(), NO_CASES)
        self._class_weights = class_weights(self._total)
        self._strategy = strategy_named(run.study.federation.method)
        self._server = self._server_half(state)
        updates.begin(state, self._schedule)
        self._interval = _Interval()
        self._round = state.rounds
        self.done = 0

    def _server_half(self, state: CommittedRound) -> ServerHalf:
        return self._strategy.server(
            ServerSetup(self._run.study, self._schedule, state.weights, state.state, state.counts)
        )

    @property
    def uncommitted(self) -> int:
        """Rounds since the last commit."""
        return self._interval.rounds

    @property
    def commit_is_due(self) -> bool:
        """Whether this round is one after which the run commits."""
        return self._schedule.commits_after(self._round)

    def commit(self) -> None:
        """Write the rounds since the last commit to the disk."""
        self.state = dataclasses.replace(
            self.state,
            rounds=self._round,
            weights=self._server.weights,
            state=self._server.state,
            bound=self._updates.bound,
            history=(*self.state.history, self._interval.point(self._round - 1)),
        )
        self._interval = _Interval()
        write_commit(self._run.folder, self.state)

    def make_round(self) -> None:
        """One round, not yet committed."""
        started, request = time.monotonic(), self._request()
        with self._updates.round(request, self._server) as received:
            norm = self._server.step(request.round, received.seconds)
        if norm is not None:
            finite = norm < float("inf")
            name = "gradient_norm" if finite else "skipped"
            received.stats[name] += Stat(norm if finite else 1, 1)
        self._interval.add(received, time.monotonic() - started)
        self._round += 1
        self.done += 1

    def _request(self) -> TrainingRequest:
        return TrainingRequest(
            run=self._run.run,
            nonce=new_nonce(),
            round=self._round,
            rounds=self._schedule.rounds,
            batches=self._schedule.batches,
            weights=self._server.weights,
            class_weights=self._class_weights,
            cases=self._total.cases,
            labelled=self._total.labelled,
            state=self._server.request_state,
        )


def _schedule_of(state: CommittedRound) -> Schedule:
    assert state.schedule is not None, "the sites were counted before"
    return state.schedule
