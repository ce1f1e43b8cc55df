"""What a kit's own process refuses, written into its audit log; and whether a site is connected."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gliofed.federated.flare.log_lines import LogEvent, parse_log_line
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.hash_chain import Event, Value

REPEAT_SECONDS: Final = 3600.0
"""How long a refusal of a kind is only counted after one was written."""
CONNECT_SECONDS: Final = 30.0
"""How long a site waits to be let in before it says that it is not."""
LOST_SECONDS: Final = 120.0
"""Within which a second lost connection is told."""

_Kind = tuple[Event, str, str]


@dataclass
class RefusalRecorder:
    """Writes each refusal that a process's lines tell of; anything else it leaves alone.

    The first of a kind (event, reason, site) is written at once. Those like it within the hour are
    counted, and written as one line with `times` when the hour or the process ends: whoever knocks
    without end, a port scanner say, fills no disk. sites: names that may be written; the log has
    no other.
    """

    log: AuditLog
    sites: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    _since: dict[_Kind, float] = field(default_factory=dict)
    _more: dict[_Kind, int] = field(default_factory=dict)

    def hear(self, line: str) -> None:
        """One line of the process; "" where it was silent. Raises as `AuditLog.write` does."""
        now = self.clock()
        for old in [k for k, since in self._since.items() if now - since >= REPEAT_SECONDS]:
            self._settle(old)
        heard = parse_log_line(line)
        kind = None if heard is None else self._kind(heard)
        if kind is None:
            return
        if kind in self._since:
            self._more[kind] = self._more.get(kind, 0) + 1
        else:
            self._since[kind] = now
            self._write(kind)

    def close(self) -> None:
        """Write what was only counted."""
        for kind in list(self._since):
            self._settle(kind)

    def _kind(self, heard: LogEvent) -> _Kind | None:
        if heard.what == "connected" or heard.what == "lost":  # noqa: PLR1714  (mypy narrows this)
            return None
        named = [s for s in self.sites if s.lower() == heard.who.lower()]
        return heard.what, heard.reason, named[0] if named else ""

    def _settle(self, kind: _Kind) -> None:
        del self._since[kind]
        more = self._more.pop(kind, 0)
        if more:
            self._write(kind, times=more)

    def _write(self, kind: _Kind, **fields: Value) -> None:
        event, reason, site = kind
        self.log.write(event, reason=reason, **({"site": site} if site else {}), **fields)


@dataclass
class ConnectionReporter:
    """Tells whoever runs a site whether the server lets it in, which FLARE tries for ever.

    server: as shown. tell: takes one line.
    """

    server: str
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started, self._in, self._told = self.clock(), False, False
        self._lost: float | None = None

    def hear(self, line: str) -> None:
        """As `RefusalRecorder.hear`."""
        now, heard = self.clock(), parse_log_line(line)
        what = heard.what if heard else ""
        if what == "connected":
            self._in, self._told = True, False
            self.tell(f"connected to {self.server}")
        elif what == "lost" and self._in:
            if self._lost is not None and now - self._lost < LOST_SECONDS and not self._told:
                self._told = True
                self.tell(
                    f"the connection to {self.server} is lost again and again: the server is not "
                    "there, or this kit is in use on another machine too, where one must be "
                    "ended; trying on"
                )
            self._lost = now
        elif not (self._in or self._told) and now - self._started >= CONNECT_SECONDS:
            self._told = True
            self.tell(
                f"{self.server} has not let this site in for {CONNECT_SECONDS:.0f} s: the server "
                "does not run, cannot be reached from here, or refuses this kit's certificate, "
                "which its audit log says; check both machines' clocks; trying on"
            )
