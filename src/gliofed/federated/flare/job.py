"""A job of configuration only: what FLARE deploys to the server and to every site."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gliofed.federated.flare.names import HELD_SITES, TASK
from gliofed.federated.flare.rules import CONTROLLER, EXECUTOR
from gliofed.runtime.files import write_text

JOB_MODEL: Final = "model"
"""Folder of a model in the server's part of a job."""
_TASK_REQUEST_SECONDS: Final = 0.05
"""From a site's response, or a reply without a task, to its next task request."""
_TASK_REQUEST_SECONDS_MANY: Final = 0.2
"""The same where the server does not hold the requests of all sites."""


def write_job(
    folder: Path, name: str, settings: Mapping[str, Any], sites: Sequence[str], quorum: int
) -> Path:
    """Write a job folder below `folder`, replacing an older one, and return it.

    settings: arguments of both classes. sites: that the job is deployed to. quorum: number of them
    that must be connected for the job to begin.
    """
    root = folder / name
    shutil.rmtree(root, ignore_errors=True)
    meta = {
        "name": name,
        "resource_spec": {},
        "deploy_map": {"server": ["server"], "site": list(sites)},
        "min_clients": quorum,
        "mandatory_clients": [],
    }
    many = len(sites) > HELD_SITES
    interval = _TASK_REQUEST_SECONDS_MANY if many else _TASK_REQUEST_SECONDS
    server = {
        "format_version": 2,
        "server": {"task_request_interval": interval},
        "workflows": [{"id": TASK, "path": CONTROLLER, "args": dict(settings)}],
        "components": [],
    }
    executor = {"path": EXECUTOR, "args": dict(settings)}
    site = {
        "format_version": 2,
        "executors": [{"tasks": [TASK], "executor": executor}],
        "components": [],
    }
    _write(root / "meta.json", meta)
    _write(root / "server/config/config_fed_server.json", server)
    _write(root / "site/config/config_fed_client.json", site)
    return root


def add_model(job: Path, files: Mapping[str, bytes]) -> None:
    """Add the files of a model to a job folder, for the server alone."""
    folder = job / "server" / JOB_MODEL
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1))
