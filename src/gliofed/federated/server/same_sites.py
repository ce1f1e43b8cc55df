"""Several requests to the same sites: all responses of a phase are about the same cases.

If a site fails, it is named, and the phase starts again without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from gliofed.errors import UpdateError
from gliofed.federated.server.exchange import Engine, exchange_files, response_file

EngineFactory = Callable[[Sequence[str]], Engine]
"""Makes an engine for the named sites."""
_Content_contra = TypeVar("_Content_contra", contravariant=True)
_Received = TypeVar("_Received")
_Result = TypeVar("_Result")


class SiteLostError(Exception):
    """A site did not respond to a later request; the results so far contain its cases."""


class PhaseMessages(Protocol[_Content_contra, _Received]):
    """The requests of a phase, and the check of what a site responds."""

    def save(self, content: _Content_contra, first: bool, path: Path) -> None:
        """Write the next request, which is answered before another one is written. first: whether
        it is the first one, with the model."""
        ...

    def check(self, site: str, file: Path, first: _Received | None) -> _Received:
        """The response in `file`. first: the site's to the first request; None of that itself.
        Raises UpdateError where it is refused."""
        ...


@dataclass
class SameSites(Generic[_Content_contra, _Received]):
    """Sends requests to sites. first: by site, the response to the first request.

    The model goes with the first request alone; sites keep its predictions until the last one.
    failures: each site that has failed, and the reason; filled.
    """

    make_engine: EngineFactory
    names: Sequence[str]
    messages: PhaseMessages[_Content_contra, _Received]
    folder: Path
    failures: dict[str, str]
    first: dict[str, _Received] | None = field(default=None)

    def __call__(self, content: _Content_contra) -> Mapping[str, _Received]:
        """By site, the response; of a later request, raises SiteLostError without one."""
        before = self.first
        names = self.names if before is None else sorted(before)
        received: dict[str, _Received] = {}
        if names:
            received = self._receive(content, names, before)
        for site in names:
            if site not in received:
                self.failures.setdefault(site, f"site {site}: no response")
        if before is None:
            self.first = received
        elif len(received) < len(names):
            raise SiteLostError
        return received

    def _receive(
        self, content: _Content_contra, names: Sequence[str], before: Mapping[str, _Received] | None
    ) -> dict[str, _Received]:
        received: dict[str, _Received] = {}

        def save(path: Path) -> None:
            self.messages.save(content, before is None, path)

        with exchange_files(self.make_engine(names), self.folder, save) as replies:
            for reply in replies:
                own = None if before is None else before[reply.site]
                try:
                    file = response_file(reply)
                    received[reply.site] = self.messages.check(reply.site, file, own)
                except UpdateError as error:
                    self.failures[reply.site] = str(error)
        return received


def without_lost_sites(
    names: Sequence[str], attempt: Callable[[Sequence[str], dict[str, str]], _Result]
) -> tuple[_Result, dict[str, str]]:
    """The result of a phase, and each site that failed with the reason.

    attempt: called with the sites that have not failed, and with those that have, which it fills;
    again where it raises SiteLostError.
    """
    failures: dict[str, str] = {}
    while True:
        try:
            result = attempt([s for s in names if s not in failures], failures)
        except SiteLostError:
            continue
        return result, dict(sorted(failures.items()))
