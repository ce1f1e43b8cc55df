"""The rounds of a run whose sums were opened, as a site remembers them.

A round that is repeated after a stop has the same gradients. A sum over all sites and one over all
but one would give the gradient of that one, so a site opens the same round for the same sites only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from gliofed.errors import PolicyError


class OpenedRounds:
    """A file with one line a round: run, round, and a digest of the sites."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _known(self) -> dict[tuple[str, int], str]:
        known = {}
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        for line in lines:
            run, number, sites = json.loads(line)
            known[run, number] = sites
        return known

    def note(self, run: str, number: int, sites: Sequence[str]) -> None:
        """Remember the sites of a round. Raises PolicyError where it was opened for others."""
        digest = hashlib.sha256(json.dumps(sorted(sites)).encode()).hexdigest()[:16]
        before = self._known.get((run, number))
        if before is not None and before != digest:
            raise PolicyError(
                f"round {number} was summed over other sites before; from the two sums the update "
                "of a single site could be computed; start the run again when the same sites "
                "respond as before"
            )
        if before is None:
            self._known[run, number] = digest
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps([run, number, digest]) + "\n")
