"""All sites in this process: no ports, the same messages, gate and merge as across machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gliofed.errors import CheckpointError, GliofedError
from gliofed.fed.rounds import Reply
from gliofed.fed.site import Site


class LocalEngine:
    """Asks each site in turn, in the order of their names.

    spool: folder for the answers.
    """

    def __init__(self, sites: Sequence[Site], spool: Path) -> None:
        self._sites = sorted(sites, key=lambda s: s.name)
        self._spool = spool

    def ask(self, task: Path) -> Iterator[Reply]:
        """One reply a site; a site that fails is named and the others go on.

        Raises CheckpointError: a site that lost its own state would fail in every later round too.
        """
        for site in self._sites:
            answer = self._spool / f"answer-{site.name}.safetensors"
            try:
                site.answer(task, answer)
            except CheckpointError:
                raise
            except GliofedError as error:
                yield Reply(site.name, None, str(error))
            else:
                yield Reply(site.name, answer)
