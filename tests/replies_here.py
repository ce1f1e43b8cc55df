"""The replies of clients in this process to one request, for engines whose replies a test changes."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from gliofed.federated.client import Client
from gliofed.federated.server.exchange import SiteReply


def replies_here(
    request: Path, sites: Mapping[str, Client], folder: Path
) -> Iterator[tuple[str, SiteReply]]:
    """Each site's name and reply, in the order of `sites`; an error of any type is in the reply."""
    for name, site in sites.items():
        answer = folder / f"answer-{name}"
        try:
            site.respond(request, answer)
            reply = SiteReply(name, answer)
        except Exception as error:
            reply = SiteReply(name, None, str(error))
        yield name, reply
