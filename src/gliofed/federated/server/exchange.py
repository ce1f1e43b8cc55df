"""One request to every site, and the replies: files that are deleted after their use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gliofed.errors import UpdateError
from gliofed.federated.messages import Request, save_request

_REQUEST = "request.safetensors"


@dataclass(frozen=True)
class SiteReply:
    """The response of one site as a file, or the reason why there is none.

    seconds: from the request until the response had arrived; None where the engine does not
    measure it.
    """

    site: str
    response: Path | None
    failure: str = ""
    seconds: float | None = None


class Engine(Protocol):
    """Carries one request to every site and yields the replies, ordered by site name."""

    def send(self, request: Path) -> Iterator[SiteReply]:
        """Send the file `request`; one reply a site, whose file the caller is to delete."""
        ...


def collect_replies(
    engine: Engine, request: Request, folder: Path
) -> AbstractContextManager[Iterator[SiteReply]]:
    """The replies to `request`, one a site, as of `exchange_files`."""
    return exchange_files(engine, folder, lambda path: save_request(path, request))


@contextmanager
def exchange_files(
    engine: Engine, folder: Path, save: Callable[[Path], None]
) -> Iterator[Iterator[SiteReply]]:
    """The replies to the request that `save` writes, one a site.

    The request is a file in `folder`. It and the files of the responses are deleted when the block
    ends.
    """
    file = folder / _REQUEST
    save(file)
    files = [file]

    def replies() -> Generator[SiteReply, None, None]:
        for reply in engine.send(file):
            files.extend([reply.response] if reply.response else [])
            yield reply

    try:
        with closing(replies()) as stream:
            yield stream
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def response_file(reply: SiteReply) -> Path:
    """The file of the response. Raises UpdateError with the reason where there is none."""
    if reply.response is None:
        raise UpdateError(f"site {reply.site}: no response: {reply.failure}")
    return reply.response
