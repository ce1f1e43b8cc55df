"""How the processes of a kit are started: command, environment and folder.

The caller runs them, watches them and passes signals on. What they write stays in the kit: jobs
and snapshots of the server, temporary files, logs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gliofed.runtime.files import write_text

_SITE_MODULE: Final = "gliofed.federated.flare.client"
_SERVER_MODULE: Final = "gliofed.federated.flare.server"


_GIVE_BACK: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(2**23),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
"""Has glibc hand large tensors that the server let go back to the system, but keep the buffers of
a transfer's chunks: mapping those anew each time makes a transfer four times as dear."""


@dataclass(frozen=True)
class ProcessCommand:
    """argv: the command. env: the whole environment. folder: where it is to run."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path


def server_process(kit: Path, work: Path, org: str) -> ProcessCommand:
    """The server of the kit in `kit`; jobs and snapshots go below `work`.

    Both folders may have moved since the last start: FLARE wants whole paths, so they are written
    into the kit anew.
    """
    place_server(kit, work)
    process = _process(kit, work, (_SERVER_MODULE, "fed_server.json"), (f"org={org}",))
    return replace(process, env={**process.env, **_GIVE_BACK})


def site_process(kit: Path, work: Path, name: str, org: str) -> ProcessCommand:
    """The client of the site `name`, which answers nothing but the federation (see `client`)."""
    return _process(kit, work, (_SITE_MODULE, "fed_client.json"), (f"uid={name}", f"org={org}"))


def place_server(kit: Path, work: Path) -> None:
    """Write the folders of the server's state into its `resources.json`."""
    path = kit / "local" / "resources.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    state = work.resolve() / "flare"
    found["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(state / "snapshots")
    for component in found["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(state / "jobs")
    write_text(path, json.dumps(found, indent=2) + "\n")


def _process(
    kit: Path, work: Path, module_and_file: tuple[str, str], settings: tuple[str, ...]
) -> ProcessCommand:
    module, startup = module_and_file
    kit, temporary = kit.resolve(), work.resolve() / "tmp"
    temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
    argv = (
        sys.executable,
        "-u",
        "-m",
        module,
        "-m",
        str(kit),
        "-s",
        startup,
        "--set",
        "secure_train=true",
        *settings,
        "config_folder=config",
    )
    env = {
        **os.environ,
        "TMPDIR": str(temporary),
        "MALLOC_ARENA_MAX": "4",  # as FLARE's own scripts
        "PYTHONNOUSERSITE": "1",
    }
    return ProcessCommand(argv, env, kit)
