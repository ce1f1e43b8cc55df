"""Recognition of log lines of FLARE and gRPC: refusals, and the connection of a site.

Neither reports a refused handshake or name in another way. Unknown lines are ignored. Tests of real
processes check the table against new versions (`tests/test_attacks.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.federated.flare.connected_site import SITES_LOGGER

What = Literal[
    "connection-refused",
    "command-refused",
    "job-refused",
    "site-failed",
    "connected",
    "lost",
    "training-failed",
    "versions",
    "revoked",
]

DENIED: Final = "gliofed.denied"
"""The logger of `federated.flare.denials`."""
CODE: Final = "byoc"
"""FLARE's right to submit a job with code."""
OTHER: Final = "other"
"""In place of a right that FLARE does not have."""
CLIENT_LOGGER: Final = "nvflare.private.fed.client.fed_client.FederatedClient"


@dataclass(frozen=True)
class LogEvent:
    """The event of a line. reason: a code for the audit log; the two versions of "versions". who:
    the name concerned, from a certificate or, in lower case, from FLARE's authoriser; "" without a
    name."""

    what: What
    reason: str = ""
    who: str = ""


_MANAGER: Final = r"ERROR nvflare\.private\.fed\.server\.client_manager\.ClientManager: "
_LOGIN: Final = r"ERROR nvflare\.fuel\.hci\.server\.login\.LoginModule: "
_RUNNER: Final = r"ERROR nvflare\.private\.fed\.app\.(?:server\.runner|client\.worker)_process: "
_SHAKE: Final = r"ssl_transport_security\.cc:\d+\] Handshake failed with error .*"

_ROWS: Final[tuple[tuple[str, What, str], ...]] = (
    (_SHAKE + "PEER_DID_NOT_RETURN_A_CERTIFICATE", "connection-refused", "no-certificate"),
    (_SHAKE + "certificate has expired", "connection-refused", "expired"),
    (_SHAKE + "CERTIFICATE_VERIFY_FAILED", "connection-refused", "unknown-authority"),
    (_SHAKE, "connection-refused", "handshake"),
    (r"ERROR nvflare\.fuel\.f3\.sfm\.conn_manager: Error processing frame: .* authenticated "
     r"as '(?P<who>[^']*)' but claimed endpoint ", "connection-refused", "other-name"),
    (_MANAGER + "failed to verify client identity: ", "connection-refused", "other-name"),
    (_MANAGER + "missing (?:client cert|signature)", "connection-refused", "no-certificate"),
    (_LOGIN + "(?:admin certificate validation failed|identity_verifier)",
     "connection-refused", "other-name"),
    (rf"WARNING {re.escape(DENIED)}: denied {CODE} to (?P<who>\S*)$",
     "job-refused", "custom-code"),
    (rf"WARNING {re.escape(DENIED)}: denied (?P<right>[a-z_]+) to (?P<who>\S*)$",
     "command-refused", ""),
    (_RUNNER + r"FL (?:server|client) execution exception: ComponentNotAuthorized",
     "job-refused", "class-not-allowed"),
    (_RUNNER + r"FL (?:server|client) execution exception: ConfigError",
     "job-refused", "not-understood"),
    (rf"WARNING {re.escape(SITES_LOGGER)}: failed (?P<right>[a-z-]+) at (?P<who>\S+)$",
     "site-failed", ""),
    (rf"ERROR {re.escape(SITES_LOGGER)}: training process failed", "training-failed", ""),
    (rf"WARNING {re.escape(SITES_LOGGER)}: server has (?P<right>\S+ \S+)$", "versions", ""),
    (rf"INFO {re.escape(CLIENT_LOGGER)}: Successfully registered client", "connected", ""),
    (rf"WARNING {re.escape(SITES_LOGGER)}: connection ended$", "lost", ""),
    (rf"ERROR {re.escape(SITES_LOGGER)}: connection refused: revoked$", "revoked", ""),
    (rf"ERROR {re.escape(SITES_LOGGER)}: refused revoked certificate of (?P<who>\S+)$",
     "connection-refused", "revoked"),
)  # fmt: skip
_TABLE: Final = tuple((re.compile(form), what, reason) for form, what, reason in _ROWS)


def parse_log_line(line: str) -> LogEvent | None:
    """The event of a line of a server's or a site's process; None for an unknown line."""
    for form, what, reason in _TABLE:
        match = form.search(line)
        if match:
            parts = match.groupdict()
            code = reason or parts.get("right", "").replace("_", "-")
            return LogEvent(what, code, parts.get("who") or "")
    return None
