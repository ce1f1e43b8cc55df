"""The web server: on a loopback address, with a token made at its start, until interrupted."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn

from gliofed.errors import DataError
from gliofed.inference.answer_files import answer_folders
from gliofed.viewer.access import AccessGuard
from gliofed.viewer.app import make_app


def view(
    answers: Path,
    store: Path | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the cases below `answers` until Ctrl-C or SIGTERM, which end it without an error.

    address: a loopback host and a port, 0 for a free one. ready: called with the address, which has
    the token, once the server accepts connections. Raises DataError: no such folder, no case in it,
    another host, a port in use.
    """
    if not answers.is_dir():
        raise DataError(f"{answers}: no such folder; give the --out of `gliofed predict`")
    if not answer_folders(answers):
        raise DataError(f"{answers}: has no predicted case; give the --out of `gliofed predict`")
    host, port = address
    with listen(host, port) as listener:
        actual_port = int(listener.getsockname()[1])
        token = secrets.token_urlsafe(32)
        config = config_of(AccessGuard(make_app(answers, store), token, actual_port))
        shown_host = f"[{host}]" if ":" in host else host
        ready(f"http://{shown_host}:{actual_port}/?token={token}")
        with suppress(KeyboardInterrupt):  # uvicorn raises it again once all is closed
            uvicorn.Server(config).run(sockets=[listener])


def config_of(app: AccessGuard) -> uvicorn.Config:
    """Configuration without access log, since an address has the token; HTTP only."""
    return uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        loop="asyncio",
        http="h11",
        timeout_graceful_shutdown=3,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket for connections from this machine. Raises DataError."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        loopback = address.is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise DataError(
            f"--host {host}: answers are served to this machine alone; give 127.0.0.1 or ::1, and "
            "reach it from another machine through SSH"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        return socket.create_server((str(address), port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{host}:{port} cannot be listened on ({reason}); choose another --port, or 0 for "
            "a free "
            "one"
        ) from None
