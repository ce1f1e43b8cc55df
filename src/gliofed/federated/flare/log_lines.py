"""What FLARE's and gRPC's own lines mean: refusals, and whether a site is connected.

Neither offers another way to hear of a refused handshake or name. A line that is not known means
nothing. Tests of real processes hold the table against new versions (`tests/test_attacks.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

What = Literal["connection-refused", "command-refused", "job-refused", "connected", "lost"]

DENIED: Final = "gliofed.denied"
"""The logger of `federated.flare.denials`."""
CODE: Final = "byoc"
"""FLARE's right to bring code in a job."""
OTHER: Final = "other"
"""In place of a right that FLARE does not have."""
CLIENT_LOGGER: Final = "nvflare.private.fed.client.fed_client.FederatedClient"
DRIVER_LOGGER: Final = "nvflare.fuel.f3.drivers.grpc_driver.GrpcDriver"


@dataclass(frozen=True)
class LogEvent:
    """What a line means. reason: a code for the audit log. who: the name concerned, of a
    certificate or as FLARE's authoriser knows it, in lower case there; "" where none is told."""

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
    (rf"INFO {re.escape(CLIENT_LOGGER)}: Successfully registered client", "connected", ""),
    (rf"INFO {re.escape(DRIVER_LOGGER)}: CLIENT: finished connection", "lost", ""),
)  # fmt: skip
_TABLE: Final = tuple((re.compile(form), what, reason) for form, what, reason in _ROWS)


def parse_log_line(line: str) -> LogEvent | None:
    """What a line of a server's or a site's process means; None for nothing that is known."""
    for form, what, reason in _TABLE:
        found = form.search(line)
        if found:
            parts = found.groupdict()
            said = reason or parts.get("right", "").replace("_", "-")
            return LogEvent(what, said, parts.get("who") or "")
    return None
