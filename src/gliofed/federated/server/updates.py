"""The updates of a round, each received, checked and bounded by itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from gliofed.errors import QuorumError, UpdateError
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.gate import UpdateGate, check_counts
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest, new_nonce
from gliofed.federated.noise.shares import noise_of_site
from gliofed.federated.schedule import Schedule
from gliofed.federated.server.exchange import Engine, SiteReply, collect_replies, response_file
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.strategies.halves import ServerHalf
from gliofed.federated.update_bound import BoundState, SizedUpdate, UpdateBound
from gliofed.types import Stat


@dataclass
class ReceivedRound:
    """What came of one round.

    seconds: site whose update was handed to the strategy to the seconds until it had arrived.
    failures: each other site and why. bounded: sites whose update was scaled down. stats: sums
    measured in the round. received: bytes.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    bounded: set[str] = field(default_factory=set)
    stats: dict[str, Stat] = field(default_factory=lambda: defaultdict(Stat))
    received: int = 0


class RoundUpdates(Protocol):
    """How the counts and the updates of the sites reach the strategy."""

    def count(self, before: Mapping[str, LabelCounts]) -> Mapping[str, LabelCounts]:
        """The counts that the sites announce now, with those of `before` that stay.

        Raises QuorumError where too few sites respond.
        """
        ...

    def begin(self, state: CommittedRound, schedule: Schedule) -> None:
        """Called with the state that the first round starts from."""
        ...

    def round(
        self, request: TrainingRequest, server: ServerHalf
    ) -> AbstractContextManager[ReceivedRound]:
        """Hand the round's updates to `server`, which may use them while the block runs.

        Raises QuorumError where too few can be used.
        """
        ...

    @property
    def bound(self) -> BoundState:
        """What a commit keeps of the updates."""
        ...


class SeparateUpdates:
    """The server receives the update of each site by itself."""

    def __init__(self, engine: Engine, run: FederatedRun) -> None:
        self._engine, self._run = engine, run

    def count(self, before: Mapping[str, LabelCounts]) -> Mapping[str, LabelCounts]:
        """As of `RoundUpdates`: by site; those of sites that are missing now stay."""
        counts: dict[str, LabelCounts] = {}
        refused: dict[str, str] = {}
        run = self._run
        request = CountsRequest(run.run, new_nonce())
        with collect_replies(self._engine, request, run.folder) as replies:
            for reply in replies:
                try:
                    file = response_file(reply)
                    limits = run.study.federation
                    counts[reply.site] = check_counts(reply.site, request, file, limits)
                except UpdateError as error:
                    refused[reply.site] = str(error)
        when = "the count before the first round"
        require_quorum(len(counts), run.study.federation.quorum, when, refused)
        return {**before, **counts}

    def begin(self, state: CommittedRound, schedule: Schedule) -> None:
        """As of `RoundUpdates`."""
        study = self._run.study
        self._bound = UpdateBound(study, state.counts, schedule.batches, state.bound)

    @property
    def bound(self) -> BoundState:
        """As of `RoundUpdates`."""
        return self._bound.state

    @contextmanager
    def round(self, request: TrainingRequest, server: ServerHalf) -> Iterator[ReceivedRound]:
        """As of `RoundUpdates`."""
        received, refused = ReceivedRound(), dict[str, str]()
        with collect_replies(self._engine, request, self._run.folder) as replies:
            updates = self._receive(request, replies, received, refused)
            self._merge(updates, server, received, refused)
            received.failures |= refused
            merged = {site: u for site, u in updates.items() if site not in refused}
            quorum = self._run.study.federation.quorum
            require_quorum(len(merged), quorum, f"round {request.round}", received.failures)
            yield received
        received.failures |= self._bound.record(request.round, merged, refused)

    def _receive(
        self,
        request: TrainingRequest,
        replies: Iterator[SiteReply],
        received: ReceivedRound,
        refused: dict[str, str],
    ) -> Mapping[str, SizedUpdate]:
        """The updates that are sound by themselves and claim no more than announced."""
        started, study = time.monotonic(), self._run.study
        updates: dict[str, SizedUpdate] = {}
        gate = UpdateGate(request, study.federation, study.frozen, noise_of_site(study))
        for reply in replies:
            seconds = time.monotonic() - started if reply.seconds is None else reply.seconds
            try:
                file = response_file(reply)
            except UpdateError as error:
                received.failures[reply.site] = str(error)
                continue
            received.received += file.stat().st_size
            try:
                self._bound.check_member(reply.site)
                update = gate.check(reply.site, file)
                self._bound.check_claims(update)
            except UpdateError as error:
                refused[reply.site] = str(error)
                continue
            updates[reply.site] = self._bound.size(request, update, file)
            received.seconds[reply.site] = seconds
        return updates

    def _merge(
        self,
        updates: Mapping[str, SizedUpdate],
        server: ServerHalf,
        received: ReceivedRound,
        refused: dict[str, str],
    ) -> None:
        """Hand on the updates that are not too large, each bounded; the others become refused."""
        factors, too_large = self._bound.factors(list(updates.values()))
        refused |= too_large
        for site, sized in updates.items():
            if site in too_large:
                del received.seconds[site]
                continue
            server.add(sized.update, sized.file, factors[site])
            if factors[site]:
                received.bounded.add(site)
            for name, stat in sized.update.stats.items():
                received.stats[name] += stat


def require_quorum(usable: int, least: int, when: str, failures: Mapping[str, str]) -> None:
    """Raise QuorumError where fewer than `least` responses could be used."""
    if usable < least:
        why = "; ".join(failures.values()) or "no site responded"
        raise QuorumError(
            f"{when}: {usable} of at least {least} responses could be used ({why}); committed "
            "rounds are kept: start again once the sites respond"
        )
