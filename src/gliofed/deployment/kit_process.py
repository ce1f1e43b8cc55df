"""A kit's process in the foreground: start, reading of its output, end with its children."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import subprocess
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from gliofed.errors import GliofedError, KitError
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.runtime.files import alone_in, private_files
from gliofed.runtime.processes import end_groups, starter

END_SECONDS: Final = 20.0
"""Seconds until a process that does not end is killed."""
_LOG_BYTES: Final = 10_000_000
_OLDER_LOGS: Final = 5
_LONGEST: Final = 2**16
"""Bytes of the longest line that is not split."""


def run_process(
    process: ProcessCommand,
    work: Path,
    audit: AuditLog,
    log: Path,
    handle_line: Callable[[str], None],
) -> None:
    """Run a process until it ends. An interrupt of this process ends it, too.

    work: locked, so that a kit is used only once on a machine. log: file for the output, 10 MB and
    5 older ones. handle_line: called with each line of the output, and with "" after each second
    without one; an exception from it ends the process. New files are for the owner alone. Raises
    GliofedError where the process ends by itself, KitError where its port is in use,
    CheckpointError where the kit is in use.
    """
    with private_files(), alone_in(work):
        if process.listens is not None:
            _refuse_used_port(*process.listens)
        audit.write("started")
        child = subprocess.Popen(  # noqa: S603  (our own command)
            process.argv,
            env={**process.env, **starter()},
            cwd=process.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = RotatingFileHandler(log, maxBytes=_LOG_BYTES, backupCount=_OLDER_LOGS)
        try:
            for line in _lines(child):
                if line:
                    output.emit(logging.makeLogRecord({"msg": line}))
                handle_line(line)
            status = child.wait()
        finally:
            end_groups([child], END_SECONDS)
            output.close()
            audit.write("stopped")
    raise GliofedError(f"the process ended by itself, with status {status}; its output: {log}")


def _refuse_used_port(address: str, port: int) -> None:
    """Raise KitError where a program listens on the port: gRPC would share it silently."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise KitError(
                f"port {port} of {address} cannot be used ({error.strerror}): another program "
                f"listens there, or this account may not; ss -ltnp 'sport = :{port}' names it; end "
                "it and serve again"
            ) from None


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Each line of output, and "" after a second without one, until the child has ended.

    The end of its pipe does not count: children of the child may hold that open.
    """
    assert child.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while True:
            ended = child.poll() is not None
            if ready.select(0 if ended else 1):
                data = os.read(child.stdout.fileno(), _LONGEST)
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LONGEST or not data:
                    lines, rest = [*lines, rest], b""
                yield from (line.decode(errors="replace") for line in lines if line)
                if not data:
                    return
            elif ended:
                return
            else:
                yield ""
