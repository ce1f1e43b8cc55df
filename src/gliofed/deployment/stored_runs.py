"""The folders of runs in a kit: listed, and deleted by command; folders of ended jobs, on a start.

A run is kept until somebody deletes it, since a run of the same study continues from it.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gliofed.deployment.kit import Kit, open_any
from gliofed.deployment.run_status import read_status
from gliofed.errors import CheckpointError, KitError
from gliofed.runtime.files import alone_in

_RUN: Final = re.compile(r"[0-9a-f]{24}")
_JOB: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
JOB_DAYS: Final = 7
"""Days that files of an ended job are kept, for a look into its logs."""


@dataclass(frozen=True)
class StoredRun:
    """run: its id. changed: when its folder changed last. bytes: on the disk. text: its study and
    state, where the kit has its status."""

    run: str
    changed: datetime
    bytes: int
    text: str


def stored_runs(kit: Path) -> tuple[StoredRun, ...]:
    """The runs that a kit stores, the newest first. Raises KitError."""
    folders = [f for f in open_any(kit).work.iterdir() if f.is_dir() and _RUN.fullmatch(f.name)]
    return tuple(sorted(map(_stored, folders), key=lambda r: r.changed, reverse=True))


def delete_run(kit: Path, run: str) -> None:
    """Delete the folder of a run, with its commits or the site's state.

    Raises KitError where the kit has no such run, CheckpointError where a process uses it.
    """
    folder = open_any(kit).work / run
    if not _RUN.fullmatch(run) or not folder.is_dir():
        raise KitError(f"{kit}: stores no run {run!r}; list them with gliofed kit runs {kit}")
    with alone_in(folder):
        pass  # no process uses it
    shutil.rmtree(folder)


def delete_job_files(kit: Kit) -> None:
    """Delete what the engine left of jobs that ended more than `JOB_DAYS` days ago.

    For the start of the kit's process, when no job runs.
    """
    oldest = time.time() - JOB_DAYS * 86400
    for folder in (kit.root, kit.work / "flare/jobs"):
        for job in folder.iterdir() if folder.is_dir() else ():
            if _JOB.fullmatch(job.name) and job.stat().st_mtime < oldest:
                shutil.rmtree(job, ignore_errors=True)


def _stored(folder: Path) -> StoredRun:
    files = [path.stat() for path in folder.rglob("*") if path.is_file()]
    changed = max((f.st_mtime for f in files), default=folder.stat().st_mtime)
    try:
        status = read_status(folder)
        text = f"{status.study}: {status.state}, {status.done} of {status.rounds or '?'} rounds"
    except CheckpointError:
        text = ""
    size = sum(f.st_size for f in files)
    return StoredRun(folder.name, datetime.fromtimestamp(changed, UTC), size, text)
