"""A kit's process in the foreground: started, watched, and ended with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from gliofed.errors import GliofedError
from gliofed.fed.engines.nvflare.process import Process
from gliofed.fed.trust.audit import AuditLog
from gliofed.io.files import alone_in
from gliofed.io.process import starter

END_SECONDS: Final = 20.0
"""How long a process may take to end before it is killed."""


def run_process(process: Process, work: Path, audit: AuditLog, log: Path) -> None:
    """Run until the process ends or this one is interrupted, which ends it too.

    work: held for this process alone, so that no kit is used twice on a machine. log: file for
    what it prints. Raises GliofedError where it ends by itself, CheckpointError where the kit is
    in use.
    """
    with alone_in(work):
        audit.write("started")
        with log.open("ab") as out:
            child = subprocess.Popen(  # noqa: S603  (our own command)
                process.argv, env={**process.env, **starter()}, cwd=process.folder,
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            status = child.wait()
        finally:
            _end(child)
            audit.write("stopped")
    raise GliofedError(f"the process ended by itself, with status {status}; what it said: {log}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the process and its group, at first kindly."""
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
