"""Sites that could not run a job, as the server's process notes them for the job's process.

One empty file `KIT/gliofed/work/flare/failed/JOB/SITE.REASON` a site. The job's process starts
later than those of the sites, so a message to it could come too early.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FAILURES: Final[Mapping[str, str]] = {
    "no-start": "its training process could not start or connect; its own screen has the reason",
    "error": "its training process ended with an error; its own screen has the reason",
    "not-permitted": "its installation of gliofed, of another version, does not permit the job",
    "ended": "its training process was ended",
    "no-job": "it could not take the training job",
}
"""Reason codes of the audit log, and the text for the lead."""

_FOLDER: Final = "gliofed/work/flare/failed"


def note_failed_site(kit: Path, job: str, site: str, reason: str) -> None:
    """Note that `site` does not run `job`; earlier jobs are forgotten. kit: of the server."""
    folder = kit / _FOLDER / job
    if not folder.is_dir():
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    (folder / f"{site}.{reason}").touch()


def failed_sites(kit: Path, job: str) -> Mapping[str, str]:
    """Site to reason code, of the sites that do not run `job`; empty where all do."""
    folder = kit / _FOLDER / job
    try:
        names = [path.name.rpartition(".") for path in folder.iterdir()]
    except FileNotFoundError:
        return {}
    return {site: reason for site, _, reason in names}
