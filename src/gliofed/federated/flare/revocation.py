"""The server's refusal of revoked certificates: on each new connection, and on open ones.

TLS libraries of gRPC for Python read no list of revoked certificates. The certificate of a
connection is therefore checked as soon as the connection is made, before any message is read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.x509.oid import NameOID
from nvflare.fuel.f3.drivers.grpc_driver import Servicer

from gliofed.federated.flare.connected_site import SITES_LOGGER

REVOKED: Final = "the certificate was revoked"
"""What a refused party is told."""
LIST_FILE: Final = "gliofed/revoked.crl"
"""The list in the server's kit."""
_POLL_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger(SITES_LOGGER)


class RevokedCertificates:
    """The list in `path`, read again when it changes. A list that cannot be read keeps the last."""

    def __init__(self, path: Path) -> None:
        self._path, self._changed = path, 0
        self._serials: frozenset[int] = frozenset()
        self._lock = threading.Lock()

    def __contains__(self, serial: int) -> bool:
        with self._lock:
            self._read()
            return serial in self._serials

    def _read(self) -> None:
        try:
            changed = self._path.stat().st_mtime_ns
            if changed == self._changed:
                return
            found = x509.load_pem_x509_crl(self._path.read_bytes())
            self._serials = frozenset(revoked.serial_number for revoked in found)
            self._changed = changed
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _LOG.error("%s cannot be read (%s)", LIST_FILE, type(error).__name__)


def refuse_revoked(kit: Path) -> None:
    """From now on, in this process, connections with a revoked certificate are refused or ended.

    kit: of the server, with the list in `LIST_FILE`.
    """
    revoked, stream = RevokedCertificates(kit / LIST_FILE), Servicer.Stream
    open_streams: dict[Any, x509.Certificate] = {}

    def checked_stream(
        self: Servicer, requests: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        found = context.auth_context().get("x509_pem_cert")
        if not found:  # of a job's process on this machine, without TLS
            yield from stream(self, requests, context)
            return
        certificate = x509.load_pem_x509_certificate(found[0])
        if certificate.serial_number in revoked:
            _log(certificate)
            context.abort(grpc.StatusCode.PERMISSION_DENIED, REVOKED)
        open_streams[context] = certificate
        try:
            yield from stream(self, requests, context)
        finally:
            open_streams.pop(context, None)

    def end_revoked() -> None:
        while True:
            time.sleep(_POLL_SECONDS)
            for context, certificate in list(open_streams.items()):
                if certificate.serial_number in revoked:
                    _log(certificate)
                    context.cancel()

    Servicer.Stream = checked_stream
    threading.Thread(target=end_revoked, daemon=True).start()


def _log(certificate: x509.Certificate) -> None:
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    _LOG.error("refused revoked certificate of %s", name.value)
