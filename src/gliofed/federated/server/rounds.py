"""The round loop of the server, which receives weights and counts, never an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gliofed.errors import QuorumError, UpdateError
from gliofed.federated.aggregation.merge import StreamingMean
from gliofed.federated.aggregation.moments import zero_moments
from gliofed.federated.aggregation.strategies import strategy_named
from gliofed.federated.checkpoint import CommittedRound, commit, last_committed
from gliofed.federated.gate import UpdateGate, check_counts
from gliofed.federated.label_counts import NO_CASES, LabelCounts, class_weights
from gliofed.federated.messages import (
    CountsRequest,
    Request,
    TrainingRequest,
    new_nonce,
    save_request,
)
from gliofed.models.network import build_net
from gliofed.study import Study
from gliofed.types import RoundPoint

_REQUEST = "request.safetensors"


@dataclass(frozen=True)
class FederatedRun:
    """One model to train.

    run: id that binds messages and checkpoints. seed: of the weights before the first round.
    folder: of the committed rounds.
    """

    study: Study
    run: str
    seed: int
    folder: Path


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
    on_round: Callable[[RoundPoint], None] | None = None,
    should_stop: Callable[[int], bool] = lambda done: False,
) -> CommittedRound:
    """Train for `study.train.rounds` rounds, continuing from the last committed one.

    should_stop: called before each round with the number of rounds that this call has made; where
    it returns True, the rest is left to a later call. Raises QuorumError where fewer than
    `federation.quorum` updates of a round can be merged; the rounds before it stay committed.
    """
    total = run.study.train.rounds
    state = last_committed(run.folder, run.run) or _initial_state(run)
    first = state.rounds
    if first >= total:
        return state
    counts = _counts(engine, run)
    while state.rounds < total and not should_stop(state.rounds - first):
        state = _round(engine, run, state, counts)
        commit(run.folder, state)
        if on_round is not None:
            on_round(state.history[-1])
    return state


def _initial_state(run: FederatedRun) -> CommittedRound:
    weights = build_net(run.study.net.preset, run.study.net.stem, run.seed).state_dict()
    shared = run.study.federation.moments == "shared"
    moments = zero_moments(weights) if shared else None
    return CommittedRound(run.run, 0, weights, (), moments)


def _counts(engine: Engine, run: FederatedRun) -> LabelCounts:
    """The sum over all sites."""
    total = NO_CASES
    refused: dict[str, str] = {}
    accepted = 0
    request = CountsRequest(run.run, new_nonce())
    with collect_replies(engine, request, run.folder) as replies:
        for reply in replies:
            try:
                file = response_file(reply)
                total += check_counts(reply.site, request, file, run.study.federation)
                accepted += 1
            except UpdateError as error:
                refused[reply.site] = str(error)
    _require_quorum(accepted, run.study, "the count before the first round", refused)
    return total


def _round(
    engine: Engine, run: FederatedRun, state: CommittedRound, counts: LabelCounts
) -> CommittedRound:
    started = time.monotonic()
    config = run.study.federation
    request = TrainingRequest(
        run=state.run,
        nonce=new_nonce(),
        round=state.rounds,
        weights=state.weights,
        class_weights=class_weights(counts),
        cases=counts.cases,
        moments=state.moments,
    )
    gate = UpdateGate(request, config)
    merge = StreamingMean(request.weights, strategy_named(config.strategy), config.server_lr)
    refused: dict[str, str] = {}
    answered: dict[str, float] = {}
    received = 0
    with collect_replies(engine, request, run.folder) as replies:
        for reply in replies:
            seconds = time.monotonic() - started if reply.seconds is None else reply.seconds
            try:
                file = response_file(reply)
                received += file.stat().st_size
                merge.add(gate.check(reply.site, file), file)
                answered[reply.site] = seconds
            except UpdateError as error:
                refused[reply.site] = str(error)
        _require_quorum(len(answered), run.study, f"round {request.round}", refused)
        weights = merge.result()
        moments = None if state.moments is None else merge.merged_moments(state.moments)
    means = {k: m for k, s in merge.stats.items() if (m := s.mean) is not None}
    point = RoundPoint(
        round=request.round,
        losses={k: v for k, v in means.items() if k not in ("dice", "skipped")},
        dice=means.get("dice"),
        seconds=time.monotonic() - started,
        bytes_up=received,
        refused=refused,
        answered=answered,
    )
    return CommittedRound(request.run, request.round + 1, weights, (*state.history, point), moments)


@contextmanager
def collect_replies(
    engine: Engine, request: Request, folder: Path
) -> Iterator[Iterator[SiteReply]]:
    """The replies to `request`, one a site.

    The request is a file in `folder`. It and the files of the responses are deleted when the block
    ends.
    """
    file = folder / _REQUEST
    save_request(file, request)
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
