"""Training statistics of a site whose rounds have few cases: one sum for each pass over all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from gliofed.federated.messages import TrainingRequest
from gliofed.types import Stat, Update


@dataclass(frozen=True)
class PassSums:
    """The sums of a pass. cases: that they are of; fewer than all where the site was restarted."""

    cases: int
    stats: Mapping[str, Stat]


class PassStatistics:
    """Collects the statistics of updates until a pass is complete.

    A round that is repeated replaces its earlier statistics.
    """

    def __init__(self) -> None:
        self._rounds: dict[int, PassSums] = {}

    def add(self, request: TrainingRequest, update: Update) -> PassSums | None:
        """The sums, with the last round of a pass; None before."""
        epoch, number = divmod(request.round, request.batches)
        self._rounds[request.round] = PassSums(update.cases, update.stats)
        self._rounds = {r: u for r, u in self._rounds.items() if r // request.batches == epoch}
        if number + 1 < request.batches:
            return None
        sums: dict[str, Stat] = defaultdict(Stat)
        for one in self._rounds.values():
            for name, stat in one.stats.items():
                sums[name] += stat
        return PassSums(sum(u.cases for u in self._rounds.values()), dict(sums))
