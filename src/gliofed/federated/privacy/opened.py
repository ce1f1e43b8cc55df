"""The rounds of a run whose sums were opened, and over which sites.

A round that is repeated after a stop has the same gradients. A sum over all sites and one over all
but one would give the gradient of that one, so a site opens the same round for the same sites only.
The server, too, remembers them: it repeats a round without the sites that have come since.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

from gliofed.errors import PolicyError


class OpenedRounds:
    """A file with one line a round: run, round and sites. The last line of a round counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _known(self) -> dict[tuple[str, int], tuple[str, ...]]:
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        rows = map(json.loads, lines)
        return {(run, number): tuple(sites) for run, number, sites in rows}

    def sites(self, run: str, number: int) -> tuple[str, ...]:
        """The sites of a round, in the order of their names; empty before it was noted."""
        return self._known.get((run, number), ())

    def note(self, run: str, number: int, sites: Collection[str]) -> None:
        """Remember the sites of a round in place of those before."""
        own = tuple(sorted(sites))
        if own == self.sites(run, number):
            return
        self._known[run, number] = own
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps([run, number, own]) + "\n")

    def require(self, run: str, number: int, sites: Collection[str]) -> None:
        """Note the sites of a round. Raises PolicyError where it was opened for others."""
        if self.sites(run, number) not in ((), tuple(sorted(sites))):
            raise PolicyError(
                f"round {number} was summed over other sites before; from the two sums the update "
                "of a single site could be computed; start the run again when the same sites "
                "respond as before"
            )
        self.note(run, number, sites)
