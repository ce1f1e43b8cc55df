"""The engine with all sites in this process: the same messages, gate and merge, no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gliofed.errors import CheckpointError, GliofedError
from gliofed.federated.client import Client
from gliofed.federated.server.exchange import SiteReply


class LocalEngine:
    """Sends a request to each site in turn, in the order of their names.

    spool: folder for the responses.
    """

    def __init__(self, sites: Sequence[Client], spool: Path) -> None:
        self._sites = sorted(sites, key=lambda s: s.name)
        self._spool = spool

    def send(self, request: Path) -> Iterator[SiteReply]:
        """One reply a site; the failure of one site is in its reply.

        Raises CheckpointError: a site that lost its own state would fail in every later round too.
        """
        for site in self._sites:
            response = self._spool / f"response-{site.name}.safetensors"
            try:
                site.respond(request, response)
            except CheckpointError:
                raise
            except GliofedError as error:
                yield SiteReply(site.name, None, str(error))
            else:
                yield SiteReply(site.name, response)
