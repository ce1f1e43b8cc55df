"""The round loop of the server, which receives weights or gradients and counts, never an image."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor

from gliofed.errors import QuorumError, UpdateError
from gliofed.federated.checkpoint import CommittedRound, last_committed
from gliofed.federated.checkpoint import commit as write_commit
from gliofed.federated.gate import UpdateGate, check_counts
from gliofed.federated.label_counts import NO_CASES, LabelCounts, class_weights
from gliofed.federated.messages import (
    CountsRequest,
    Request,
    TrainingRequest,
    new_nonce,
    save_request,
)
from gliofed.federated.schedule import Schedule, make_schedule
from gliofed.federated.strategies.halves import ServerHalf, ServerSetup
from gliofed.federated.strategies.table import strategy_named
from gliofed.federated.update_bound import SizedUpdate, UpdateBound
from gliofed.models.network import build_net, without_frozen
from gliofed.study import Study
from gliofed.types import RoundPoint, Stat

_REQUEST = "request.safetensors"
InitialWeights = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class FederatedRun:
    """One model to train.

    run: id that binds messages and checkpoints. seed: of the weights before the first round.
    folder: of the committed rounds. initial: called for the weights before the first round; None
    for random ones.
    """

    study: Study
    run: str
    seed: int
    folder: Path
    initial: InitialWeights | None = None


@dataclass(frozen=True)
class SiteReply:
    """The response of one site as a file, or the reason why there is none.

    seconds: from the request until the response had arrived; None where the engine does not
    measure it.
    """

    site: str
    response: Path | None
    failure: str = ""
    seconds: float | None = None


class Engine(Protocol):
    """Carries one request to every site and yields the replies, ordered by site name."""

    def send(self, request: Path) -> Iterator[SiteReply]:
        """Send the file `request`; one reply a site, whose file the caller is to delete."""
        ...


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
    state = _with_counts(engine, run, state)
    if on_start is not None:
        on_start(state)
    rounds = _Rounds(engine, run, state)
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


def _with_counts(engine: Engine, run: FederatedRun, state: CommittedRound) -> CommittedRound:
    """The state with the counts of the sites that are there now, and with the schedule.

    The schedule is that of the first counts of the run.
    """
    counts: dict[str, LabelCounts] = {}
    refused: dict[str, str] = {}
    request = CountsRequest(run.run, new_nonce())
    with collect_replies(engine, request, run.folder) as replies:
        for reply in replies:
            try:
                file = response_file(reply)
                counts[reply.site] = check_counts(reply.site, request, file, run.study.federation)
            except UpdateError as error:
                refused[reply.site] = str(error)
    _require_quorum(len(counts), run.study, "the count before the first round", refused)
    everyone = {**state.counts, **counts}
    total = sum((c.cases for c in everyone.values()), 0)
    schedule = state.schedule or make_schedule(run.study, total)
    return dataclasses.replace(state, schedule=schedule, counts=everyone)


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


@dataclass
class _Received:
    """The updates of one round by site, after how many seconds, and why others have none.

    refused: sites whose update was refused. missing: those that sent none.
    """

    updates: dict[str, SizedUpdate] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class _Rounds:
    """The rounds of one run from its last commit on."""

    def __init__(self, engine: Engine, run: FederatedRun, state: CommittedRound) -> None:
        self._engine, self._run, self.state = engine, run, state
        self._schedule = _schedule_of(state)
        self._total = sum(state.counts.values(), NO_CASES)
        self._class_weights = class_weights(self._total)
        self._strategy = strategy_named(run.study.federation.method)
        self._server = self._server_half(state)
        self._bound = UpdateBound(run.study, state.counts, self._schedule.batches, state.bound)
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
            bound=self._bound.state,
            history=(*self.state.history, self._interval.point(self._round - 1)),
        )
        self._interval = _Interval()
        write_commit(self._run.folder, self.state)

    def make_round(self) -> None:
        """One round, not yet committed."""
        started = time.monotonic()
        request, interval = self._request(), self._interval
        with collect_replies(self._engine, request, self._run.folder) as replies:
            received = self._receive(request, replies, started)
            self._merge(received)
            merged = list(received.updates)
            failures = {**received.missing, **received.refused}
            _require_quorum(len(merged), self._run.study, f"round {request.round}", failures)
            norm = self._server.step(request.round, merged)
        if norm is not None:
            finite = norm < float("inf")
            interval.stats["gradient_norm" if finite else "skipped"] += Stat(
                norm if finite else 1, 1
            )
        failures |= self._bound.record(request.round, received.updates, received.refused)
        for site, why in failures.items():
            interval.refused[site].append(why)
        interval.rounds += 1
        interval.seconds += time.monotonic() - started
        self._round += 1
        self.done += 1

    def _receive(
        self, request: TrainingRequest, replies: Iterator[SiteReply], started: float
    ) -> _Received:
        """The updates of a round that are sound by themselves and claim no more than announced."""
        study, received = self._run.study, _Received()
        gate = UpdateGate(request, study.federation, study.frozen)
        for reply in replies:
            seconds = time.monotonic() - started if reply.seconds is None else reply.seconds
            try:
                file = response_file(reply)
            except UpdateError as error:
                received.missing[reply.site] = str(error)
                continue
            self._interval.received += file.stat().st_size
            try:
                self._bound.check_member(reply.site)
                update = gate.check(reply.site, file)
                self._bound.check_claims(update)
            except UpdateError as error:
                received.refused[reply.site] = str(error)
                continue
            sized = self._bound.size(request, update, file)
            received.updates[reply.site], received.seconds[reply.site] = sized, seconds
        return received

    def _merge(self, received: _Received) -> None:
        """Hand on the updates that are not too large, each bounded; the others become refused."""
        factors, too_large = self._bound.factors(list(received.updates.values()))
        received.refused |= too_large
        for site in too_large:
            del received.updates[site]
        for site, sized in received.updates.items():
            self._server.add(sized.update, sized.file, factors[site])
            self._interval.answered[site] += Stat(received.seconds[site], 1)
            self._interval.bounded[site] += bool(factors[site])
            for name, stat in sized.update.stats.items():
                self._interval.stats[name] += stat

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


def collect_replies(
    engine: Engine, request: Request, folder: Path
) -> AbstractContextManager[Iterator[SiteReply]]:
    """The replies to `request`, one a site, as of `exchange_files`."""
    return exchange_files(engine, folder, lambda path: save_request(path, request))


@contextmanager
def exchange_files(
    engine: Engine, folder: Path, save: Callable[[Path], None]
) -> Iterator[Iterator[SiteReply]]:
    """The replies to the request that `save` writes, one a site.

    The request is a file in `folder`. It and the files of the responses are deleted when the block
    ends.
    """
    file = folder / _REQUEST
    save(file)
    files = [file]

    def replies() -> Generator[SiteReply, None, None]:
        for reply in engine.send(file):
            files.extend([reply.response] if reply.response else [])
            yield reply

    try:
        with closing(replies()) as stream:
            yield stream
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def response_file(reply: SiteReply) -> Path:
    """The file of the response. Raises UpdateError with the reason where there is none."""
    if reply.response is None:
        raise UpdateError(f"site {reply.site}: no response: {reply.failure}")
    return reply.response


def _require_quorum(accepted: int, study: Study, when: str, refused: Mapping[str, str]) -> None:
    if accepted < study.federation.quorum:
        why = "; ".join(refused.values()) or "no site responded"
        raise QuorumError(
            f"{when}: {accepted} of at least {study.federation.quorum} responses could be used "
            f"({why}); committed rounds are kept: start again once the sites respond"
        )
