"""The round loop, the server's half: it sees weights and counts, never an image."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from gliofed.errors import QuorumError, UpdateError
from gliofed.federated.aggregation.merge import StreamingMean
from gliofed.federated.aggregation.moments import with_moments
from gliofed.federated.aggregation.strategies import strategy_named
from gliofed.federated.checkpoint import CommittedRound, commit, last_committed
from gliofed.federated.gate import UpdateGate, check_counts
from gliofed.federated.label_counts import NO_CASES, LabelCounts, class_weights
from gliofed.federated.messages import Task, new_nonce, save_task
from gliofed.models.network import build_net
from gliofed.study import Study
from gliofed.types import RoundPoint

_ASKED = "task.safetensors"


@dataclass(frozen=True)
class SiteReply:
    """What came back from one site: a file, or why there is none.

    seconds: from the request until the answer was there; None where the engine does not know.
    """

    site: str
    answer: Path | None
    failure: str = ""
    seconds: float | None = None


class Engine(Protocol):
    """Carries one task to every site and yields the replies, ordered by site name."""

    def ask(self, task: Path) -> Iterator[SiteReply]:
        """Send the file `task`; one reply a site, its file from then on the caller's to delete."""
        ...


def run_rounds(
    engine: Engine,
    study: Study,
    seed: int,
    run: str,
    folder: Path,
    on_round: Callable[[RoundPoint], None] | None = None,
    enough: Callable[[int], bool] = lambda done: False,
) -> CommittedRound:
    """Train for `study.train.rounds` rounds, going on from the last committed one in `folder`.

    seed: of the weights that the first round starts from. enough: asked before each round with how
    many this call has made; where it says so, the rest is left to a later call. Raises QuorumError
    where fewer than `federation.quorum` updates of a round can be merged; the rounds before it stay
    committed.
    """
    state = last_committed(folder, run) or _beginning(study, seed, run)
    begun = state.rounds
    if begun >= study.train.rounds:
        return state
    counts = _counts(engine, study, run, folder)
    while state.rounds < study.train.rounds and not enough(state.rounds - begun):
        state = _round(engine, study, state, counts, folder)
        commit(folder, state)
        if on_round is not None:
            on_round(state.history[-1])
    return state


def _beginning(study: Study, seed: int, run: str) -> CommittedRound:
    net = build_net(study.net.preset, study.net.stem, seed)
    weights: Mapping[str, Tensor] = net.state_dict()
    if study.federation.moments == "shared":
        weights = with_moments(weights)
    return CommittedRound(run, 0, weights, ())


def _counts(engine: Engine, study: Study, run: str, folder: Path) -> LabelCounts:
    total = NO_CASES
    refused: dict[str, str] = {}
    accepted = 0
    task = Task("count", run, -1, new_nonce(), {}, {})
    with collect_replies(engine, task, folder) as replies:
        for reply in replies:
            try:
                total += check_counts(reply.site, task, response_file(reply), study.federation)
                accepted += 1
            except UpdateError as error:
                refused[reply.site] = str(error)
    _require_quorum(accepted, study, "the count before the first round", refused)
    return total


def _round(
    engine: Engine,
    study: Study,
    state: CommittedRound,
    counts: LabelCounts,
    folder: Path,
) -> CommittedRound:
    started = time.monotonic()
    rules = study.federation
    task = Task("train", state.run, state.rounds, new_nonce(), state.weights,
                class_weights(counts), counts.cases)  # fmt: skip
    gate = UpdateGate(task, rules)
    merge = StreamingMean(task.weights, strategy_named(rules.strategy), rules.server_lr)
    refused: dict[str, str] = {}
    answered: dict[str, float] = {}
    received = 0
    with collect_replies(engine, task, folder) as replies:
        for reply in replies:
            seconds = time.monotonic() - started if reply.seconds is None else reply.seconds
            try:
                answer = response_file(reply)
                received += answer.stat().st_size
                merge.add(gate.check(reply.site, answer), answer)
                answered[reply.site] = seconds
            except UpdateError as error:
                refused[reply.site] = str(error)
        _require_quorum(len(answered), study, f"round {task.round}", refused)
        merged = merge.result()
    means = {k: m for k, s in merge.stats.items() if (m := s.mean) is not None}
    point = RoundPoint(
        round=task.round,
        losses={k: v for k, v in means.items() if k not in ("dice", "skipped")},
        dice=means.get("dice"),
        seconds=time.monotonic() - started,
        bytes_up=received,
        refused=refused,
        answered=answered,
    )
    return CommittedRound(task.run, task.round + 1, merged, (*state.history, point))


@contextmanager
def collect_replies(engine: Engine, task: Task, folder: Path) -> Iterator[Iterator[SiteReply]]:
    """One reply a site to `task`; it lies in `folder`, and the answers wherever the engine puts
    them, until the block ends."""
    asked = folder / _ASKED
    save_task(asked, task)
    here = [asked]

    def replies() -> Generator[SiteReply, None, None]:
        for reply in engine.ask(asked):
            here.extend([reply.answer] if reply.answer else [])
            yield reply

    try:
        with closing(replies()) as found:
            yield found
    finally:
        for path in here:
            path.unlink(missing_ok=True)


def response_file(reply: SiteReply) -> Path:
    """The file that came back. Raises UpdateError with the reason where none did."""
    if reply.answer is None:
        raise UpdateError(f"site {reply.site}: no answer: {reply.failure}")
    return reply.answer


def _require_quorum(accepted: int, study: Study, when: str, refused: Mapping[str, str]) -> None:
    if accepted < study.federation.quorum:
        why = "; ".join(refused.values()) or "no site answered"
        raise QuorumError(
            f"{when}: {accepted} of at least {study.federation.quorum} answers could be used "
            f"({why}); earlier rounds are kept, start again once the sites are well"
        )
