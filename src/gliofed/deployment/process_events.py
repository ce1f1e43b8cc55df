"""Events in the lines of a kit's process: refusals for the audit log, and the connection."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gliofed.federated.flare.connected_site import Versions, own_versions, parse_versions
from gliofed.federated.flare.log_lines import LogEvent, parse_log_line
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.hash_chain import Event, Value
from gliofed.runtime.printable import printable

REPEAT_SECONDS: Final = 3600.0
"""Seconds after a written refusal during which others of its kind are only counted."""
CONNECT_SECONDS: Final = 30.0
"""Seconds without a connection until it is reported."""
LOST_SECONDS: Final = 120.0
"""A second loss of the connection within these seconds is reported."""

_Kind = tuple[Event, str, str]
_ERROR: Final = re.compile(r"\w*(?:Error|Exception|Exit)\b.*")
"""The last line of a traceback."""


_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_NO_PROXY: Final = ("no_grpc_proxy", "no_proxy")
"""Environment variables in gRPC's order."""


def proxy_remark(server: str) -> str:
    """The proxy that gRPC uses for `server`, host and port; "" where it uses none."""
    host = server.rpartition(":")[0]
    spared = next((v for name in _NO_PROXY if (v := os.environ.get(name))), "")
    if any(part and host.endswith(part) for part in spared.replace(" ", "").split(",")):
        return ""
    for name in _PROXIES:
        value = os.environ.get(name)
        if value:
            proxy = printable(value.rpartition("@")[2])  # without a password
            return (
                f"; the environment variable {name} sends the connection through the proxy "
                f"{proxy}: if that cannot reach the server, set no_proxy={host}"
            )
    return ""


@dataclass
class RefusalRecorder:
    """Writes the refusals that a process prints into the audit log.

    The first of a kind (event, reason, site) is written at once. Others of the kind within the hour
    are counted, and written as one line with `times` when the hour or the process ends, so that
    endless attempts, as of a port scanner, do not fill the disk. sites: names that may be written.
    """

    log: AuditLog
    sites: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    _since: dict[_Kind, float] = field(default_factory=dict)
    _more: dict[_Kind, int] = field(default_factory=dict)

    def handle_line(self, line: str) -> None:
        """Handle one line, or "" after a second without one. Raises as `AuditLog.write` does."""
        now = self.clock()
        for old in [k for k, since in self._since.items() if now - since >= REPEAT_SECONDS]:
            self._end_period(old)
        event = parse_log_line(line)
        kind = None if event is None else self._kind(event)
        if kind is None:
            return
        if kind in self._since:
            self._more[kind] = self._more.get(kind, 0) + 1
        else:
            self._since[kind] = now
            self._write(kind)

    def close(self) -> None:
        """Write the refusals that were only counted."""
        for kind in list(self._since):
            self._end_period(kind)

    def _kind(self, event: LogEvent) -> _Kind | None:
        what = event.what
        if what == "connected" or what == "lost":  # noqa: PLR1714  (mypy narrows this)
            return None
        if what == "training-failed" or what == "versions" or what == "revoked":  # noqa: PLR1714
            return None
        named = [s for s in self.sites if s.lower() == event.who.lower()]
        return what, event.reason, named[0] if named else ""

    def _end_period(self, kind: _Kind) -> None:
        del self._since[kind]
        more = self._more.pop(kind, 0)
        if more:
            self._write(kind, times=more)

    def _write(self, kind: _Kind, **fields: Value) -> None:
        event, reason, site = kind
        self.log.write(event, reason=reason, **({"site": site} if site else {}), **fields)


@dataclass
class ConnectionReporter:
    """Reports to the person who runs a site whether it is connected, and that it could not train.

    FLARE retries a connection for ever. server: host and port, as shown. log: file with the output
    of the processes. report: receives one line.
    """

    server: str
    log: Path
    report: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started, self._connected, self._reported = self.clock(), False, False
        self._lost: float | None = None
        self._error, self._revoked = "", False

    def handle_line(self, line: str) -> None:
        """As `RefusalRecorder.handle_line`."""
        now, event = self.clock(), parse_log_line(line)
        what = event.what if event else ""
        if _ERROR.match(line):
            self._error = printable(line)
        if what == "versions":
            assert event is not None
            self._compare(event.reason)
        elif what == "training-failed":
            why = f": {self._error}" if self._error else ""
            self._error = ""
            self.report(
                f"a training process of this site could not run{why}; its output: {self.log}; "
                "the federation goes on without this site: correct the cause, then end this "
                "command and start it again"
            )
        elif what == "revoked":
            if not self._revoked:
                self.report(
                    f"{self.server} refuses this kit: its certificate was revoked; ask the lead "
                    "for a new kit; trying again"
                )
            self._revoked = True
        elif what == "connected":
            self._connected, self._reported = True, False
            self.report(f"connected to {self.server}")
        elif what == "lost" and self._connected:
            self._take_loss(now)
        elif not (self._connected or self._reported) and now - self._started >= CONNECT_SECONDS:
            self._reported = True
            self.report(
                f"no connection to {self.server} for {CONNECT_SECONDS:.0f} s: the server does not "
                "run, cannot be reached from here, or refuses this kit's certificate (see its "
                f"audit log); check both machines' clocks{proxy_remark(self.server)}; trying again"
            )

    def _take_loss(self, now: float) -> None:
        if self._lost is not None and now - self._lost < LOST_SECONDS and not self._reported:
            self._reported = True
            self.report(
                f"the connection to {self.server} was made and lost repeatedly: the network "
                f"interrupts it{proxy_remark(self.server)}, or this kit is also in use on another "
                "machine: stop one of the two; trying again"
            )
        self._lost = now

    def _compare(self, sent: str) -> None:
        """Report the server's versions, two words, where they are not this site's."""
        gliofed, torch = sent.split()
        server, own = Versions(gliofed, torch), parse_versions(own_versions())
        if server != own:
            self.report(
                f"the server has {server.text}; here are {own.text}: install the same versions, "
                "or training may be refused or give other results"
            )
