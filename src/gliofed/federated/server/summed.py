"""The updates of a round as one sum: the server receives no update by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gliofed.errors import UpdateError
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest, new_nonce
from gliofed.federated.noise.shares import largest_gradient
from gliofed.federated.privacy.fixed_point import fixed_point_of
from gliofed.federated.privacy.server import OpenedSum, SecretSums, not_a_sum
from gliofed.federated.schedule import Schedule
from gliofed.federated.server.exchange import Engine
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.updates import ReceivedRound
from gliofed.federated.strategies.halves import ServerHalf
from gliofed.federated.update_bound import BoundState

ALL_SITES = "all sites"
"""The name under which a commit has the counts of all sites together."""
_SLACK = 1 + 1e-6


class SummedUpdates:
    """The server receives masked counts and gradients, and opens their sums only.

    The sites whose counts were summed at the start of a job take part in its rounds.
    """

    bound = BoundState()

    def __init__(self, engine: Engine, run: FederatedRun) -> None:
        self._run, self._sums = run, SecretSums(engine, run)
        self._counted: tuple[str, ...] = ()

    def count(self, before: Mapping[str, LabelCounts]) -> Mapping[str, LabelCounts]:
        """As of `RoundUpdates`: one entry. That of `before` stays where it has more cases: sites
        are missing now."""
        when = "the count before the first round"
        opened = self._sums.add(CountsRequest(self._run.run, new_nonce()), when)
        self._counted = tuple(opened.seconds)
        counts = opened.figures.counts
        if not 1 <= counts.cases <= len(self._counted) * self._run.study.federation.max_cases:
            raise not_a_sum(when, opened.seconds, f"{counts.cases} cases (max_cases)")
        known = before.get(ALL_SITES, counts)
        return {ALL_SITES: known if known.cases > counts.cases else counts}

    def begin(self, state: CommittedRound, schedule: Schedule) -> None:
        """As of `RoundUpdates`: nothing is compared between sites."""

    @contextmanager
    def round(self, request: TrainingRequest, server: ServerHalf) -> Iterator[ReceivedRound]:
        """As of `RoundUpdates`: one sum."""
        when = f"round {request.round}"
        opened = self._sums.add(request, when, self._counted)
        values = sum(t.numel() for t in opened.tensors.values())
        fixed = fixed_point_of(self._run.study, values)
        try:
            self._check(opened, norm(opened.tensors) * fixed.unit, values)
        except UpdateError as error:
            raise not_a_sum(when, opened.seconds, error) from None
        server.add_sum(
            lambda name: fixed.decode(opened.tensors[name]),
            opened.figures.batch,
            opened.figures.counts,
        )
        received = ReceivedRound(failures=dict(opened.failures), received=opened.received)
        received.seconds |= opened.seconds
        received.stats |= opened.figures.stats
        yield received

    def _check(self, opened: OpenedSum, size: float, values: int) -> None:
        """Raise UpdateError where the sum is more than its sites may send together.

        size: norm of the sum. values: numbers in it.
        """
        sites, bound = len(opened.seconds), largest_gradient(self._run.study, values)
        if size > sites * bound * _SLACK:
            raise UpdateError(
                f"its gradient has norm {size:.4g}, above {sites} x {bound:g} (max_gradient)"
            )
        if opened.figures.batch > opened.figures.counts.cases:
            raise UpdateError("its batch has more cases than its sites")
