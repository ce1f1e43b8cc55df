"""A kit's process in the foreground: started, heard, and ended with everything it started."""

from __future__ import annotations

import logging
import os
import selectors
import subprocess
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from gliofed.errors import GliofedError
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.runtime.files import alone_in
from gliofed.runtime.processes import end_groups, starter

END_SECONDS: Final = 20.0
"""How long a process may take to end before it is killed."""
_LOG_BYTES: Final = 10_000_000
_OLDER_LOGS: Final = 5
_LONGEST: Final = 2**16
"""Bytes of the longest line that is kept in one piece."""


def run_process(
    process: ProcessCommand, work: Path, audit: AuditLog, log: Path, hear: Callable[[str], None]
) -> None:
    """Run until the process ends or this one is interrupted, which ends it too.

    work: held for this process alone, so that no kit is used twice on a machine. log: file for
    what it prints, 10 MB and 5 older ones. hear: is given each line of it, and "" after each
    silent second; what it raises ends the process. Raises GliofedError where it ends by itself,
    CheckpointError where the kit is in use.
    """
    with alone_in(work):
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
        said = RotatingFileHandler(log, maxBytes=_LOG_BYTES, backupCount=_OLDER_LOGS)
        try:
            for line in _lines(child):
                if line:
                    said.emit(logging.makeLogRecord({"msg": line}))
                hear(line)
            status = child.wait()
        finally:
            end_groups([child], END_SECONDS)
            said.close()
            audit.write("stopped")
    raise GliofedError(f"the process ended by itself, with status {status}; what it said: {log}")


def _lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """Each line as it comes, "" after a silent second, until the child has ended.

    Not until its pipe has: what the child started may hold that open.
    """
    assert child.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while True:
            ended = child.poll() is not None
            if ready.select(0 if ended else 1):
                found = os.read(child.stdout.fileno(), _LONGEST)
                *whole, rest = (rest + found).split(b"\n")
                if len(rest) > _LONGEST or not found:
                    whole, rest = [*whole, rest], b""
                yield from (w.decode(errors="replace") for w in whole if w)
                if not found:
                    return
            elif ended:
                return
            else:
                yield ""
