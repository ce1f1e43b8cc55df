"""Processes of gliofed's own: how many fit, and that none outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Final

_STARTER: Final = "GLIOFED_STARTER"


def cores() -> int:
    """Cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def belong_to_parent() -> None:
    """In a new process: ignore Ctrl-C, which its parent handles, and end when the parent ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def starter() -> dict[str, str]:
    """Environment variables for a process that is to `end_with_starter` with this one."""
    return {_STARTER: str(os.getpid())}


def end_with_starter(poll: float = 0.5) -> None:
    """End with the process that started this one with `starter` in its environment.

    This process ends at once if that one has ended already. Processes that this one starts end with
    it. Without `starter` in the environment nothing happens.
    """
    expected = os.environ.get(_STARTER)
    if expected is None or int(expected) == os.getpid():  # or it is watched already
        return
    os.environ.update(starter())

    def watch() -> None:
        while os.getppid() == int(expected):
            time.sleep(poll)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def end_groups(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """End processes that lead groups of their own, and their groups, the first of them first.

    Kindly at first; what is left after `seconds`, or of a group whose leader has ended, is killed.
    What they still print into a pipe is read and dropped, so that none waits for a reader.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        for child in children:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, number)
        until = time.monotonic() + seconds
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=max(0.1, until - time.monotonic()))
