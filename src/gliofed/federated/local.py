"""All sites in this process: no ports, the same messages, gate and merge as across machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gliofed.errors import CheckpointError, GliofedError
from gliofed.federated.client import Client
from gliofed.federated.server.rounds import SiteReply


class LocalEngine:
    """Asks each site in turn, in the order of their names.

    spool: folder for the answers.
    """

    def __init__(self, sites: Sequence[Client], spool: Path) -> None:
        self._sites = sorted(sites, key=lambda s: s.name)
        self._spool = spool

    def ask(self, task: Path) -> Iterator[SiteReply]:
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
                yield SiteReply(site.name, None, str(error))
            else:
                yield SiteReply(site.name, answer)
