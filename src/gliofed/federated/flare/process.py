"""Commands, environments and folders of the processes of a kit.

The caller starts and ends them. Their files stay in the kit: jobs and snapshots of the server,
temporary files, logs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gliofed.federated.flare.limits import write_limits
from gliofed.runtime.files import write_text

_SITE_MODULE: Final = "gliofed.federated.flare.client"
_SERVER_MODULE: Final = "gliofed.federated.flare.server"


_MALLOC: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(2**23),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
}
"""Settings of glibc: memory of large tensors is returned to the system when it is freed. Buffers of
transferred chunks are kept, since mapping them again takes a transfer four times as long."""
_OUTCOMES: Final = {"NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "30"}
"""Seconds after the end of a job during which the server waits for training processes of sites to
end; FLARE waits 900."""


@dataclass(frozen=True)
class ProcessCommand:
    """argv: the command. env: the complete environment. folder: its working directory. listens:
    address and port that it listens on, if any."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    listens: tuple[str, int] | None = None


def server_process(kit: Path, work: Path, org: str) -> ProcessCommand:
    """The server of the kit in `kit`; jobs and snapshots go below `work`.

    Both folders may have moved since the last start. FLARE needs absolute paths, so they are
    written into the kit on each start.
    """
    place_server(kit, work)
    process = _process(kit, work, (_SERVER_MODULE, "fed_server.json"), (f"org={org}",))
    startup = json.loads((kit / "startup/fed_server.json").read_text(encoding="utf-8"))
    address, _, port = startup["servers"][0]["service"]["target"].rpartition(":")
    return replace(
        process, listens=(address, int(port)), env={**process.env, **_MALLOC, **_OUTCOMES}
    )


def site_process(kit: Path, work: Path, name: str, org: str) -> ProcessCommand:
    """The client of the site `name`, restricted to jobs (see `client`)."""
    return _process(kit, work, (_SITE_MODULE, "fed_client.json"), (f"uid={name}", f"org={org}"))


def place_server(kit: Path, work: Path) -> None:
    """Write the folders of the server's state into its `resources.json`."""
    path = kit / "local" / "resources.json"
    resources = json.loads(path.read_text(encoding="utf-8"))
    state = work.resolve() / "flare"
    resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(
        state / "snapshots"
    )
    for component in resources["components"]:
        if component["id"] == "job_manager":
            component["args"]["uri_root"] = str(state / "jobs")
    write_text(path, json.dumps(resources, indent=2) + "\n")


def _process(
    kit: Path, work: Path, module_and_file: tuple[str, str], settings: tuple[str, ...]
) -> ProcessCommand:
    module, startup = module_and_file
    kit, temporary = kit.resolve(), work.resolve() / "tmp"
    write_limits(kit)
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
