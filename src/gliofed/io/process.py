"""Processes of gliofed's own: how many fit, and that none outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait
from typing import Final

_STARTER: Final = "GLIOFED_STARTER"


def cores() -> int:
    """Cores that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def belong_to_parent() -> None:
    """In a process just started: leave Ctrl-C to whoever started it, and end when that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def starter() -> dict[str, str]:
    """What the environment of a process has to hold that is to `end_with_starter` of this one."""
    return {_STARTER: str(os.getpid())}


def end_with_starter(poll: float = 0.5) -> None:
    """In a process that was started with `starter` in its environment: end when whoever did ends.

    At once where it has ended by now: loading libraries takes seconds. What this process starts in
    turn is to end with this one. A process that somebody else started is left alone.
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
