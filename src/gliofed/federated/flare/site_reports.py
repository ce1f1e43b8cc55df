"""The site's process: it prints what its own screen needs, and sends its versions when registering.

FLARE's client writes neither the failure of a training process nor the server's versions to the
terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

import grpc
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.drivers.grpc_driver import StreamConnection
from nvflare.private.defs import CellChannelTopic, JobFailureMsgKey
from nvflare.private.fed import authenticator
from nvflare.private.fed.client import communicator
from nvflare.private.fed.client.client_executor import REPORTABLE_JOB_FAILURES
from nvflare.private.fed.client.fed_client_base import FederatedClientBase

from gliofed.federated.flare.connected_site import (
    SITES_LOGGER,
    VERSIONS,
    own_versions,
    parse_versions,
)
from gliofed.federated.flare.revocation import REVOKED

_LOG: Final = logging.getLogger(SITES_LOGGER)


def print_failures() -> None:
    """From now on, print a line where a training process of this site has failed."""
    send = FederatedClientBase.send_request_before_shutdown

    def send_request(self: FederatedClientBase, **request: Any) -> Any:
        if request["topic"] == CellChannelTopic.REPORT_JOB_FAILURE:
            code = request["request"].payload[JobFailureMsgKey.CODE]
            if code in REPORTABLE_JOB_FAILURES:
                _LOG.error("training process failed with %s", code)
        return send(self, **request)

    FederatedClientBase.send_request_before_shutdown = send_request


def print_connection() -> None:
    """From now on, print a line where this process's connection to the server ends or is refused.

    Training processes have connections of their own, which end with them. A connection that was
    never made prints nothing.
    """
    read_loop = StreamConnection.read_loop

    def read(self: StreamConnection, frames: Iterable[Any]) -> None:
        read_loop(self, _reported(frames) if self.side == "CLIENT" else frames)

    StreamConnection.read_loop = read


def _reported(frames: Iterable[Any]) -> Iterator[Any]:
    received = False
    try:
        for frame in frames:
            received = True
            yield frame
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.PERMISSION_DENIED and error.details() == REVOKED:
            _LOG.error("connection refused: revoked")
        raise
    finally:
        if received:
            _LOG.warning("connection ended")


def exchange_versions() -> None:
    """From now on, send this site's versions when it registers, and print the server's."""
    site_config = communicator.Communicator._get_site_config_for_registration

    def with_versions(self: communicator.Communicator, fl_ctx: FLContext) -> dict[str, Any]:
        return {**(site_config(self, fl_ctx) or {}), VERSIONS: own_versions()}

    class Authenticator(authenticator.Authenticator):  # type: ignore[misc]  # (FLARE has no types)
        def __init__(self, cell: Any, **settings: Any) -> None:
            super().__init__(cell=_RegistrationCell(cell), **settings)

    communicator.Communicator._get_site_config_for_registration = with_versions
    communicator.Authenticator = Authenticator


class _RegistrationCell:
    """The site's cell, which prints the server's versions from the reply to a registration."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    def send_request(self, **request: Any) -> Any:
        reply = self._cell.send_request(**request)
        if request["topic"] == CellChannelTopic.Register and isinstance(reply.payload, dict):
            server = parse_versions(reply.payload.get(VERSIONS))
            _LOG.warning("server has %s %s", server.gliofed or "-", server.torch or "-")
        return reply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)
