"""A federation of real FLARE processes on 127.0.0.1 over mutual TLS, for benchmarks of it.

Its kits are gliofed's own, except that the classes of `stub_site` may be named by jobs too. What
processes hold is read from /proc, so Linux only.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gliofed.deployment.federation_plan import parse_plan
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.provision import make_start_up_kits
from gliofed.deployment.training_job import make_job, study_for_sites
from gliofed.errors import LinkError
from gliofed.federated.flare import job, rules
from gliofed.federated.flare.admin_session import AdminSession
from gliofed.federated.flare.process import ProcessCommand, server_process, site_process
from gliofed.federated.governance.approval import approve
from gliofed.federated.governance.policy import load_policy
from gliofed.study import Study, parse_study

HERE = Path(__file__).parent
LEAD = "ada@example.org"
CLASSES = ("StubServerController", "StubClientExecutor", "PeerFedAvg", "PeerExecutor")
DRAWN = 20
"""Cases of every batch that each stub site has; ten times as many in all."""
TESTER = "tester"
"""An external hospital, which a study must name; it has a kit but is never started."""
POLICY = "min_cases = 3\nmin_batch = 1\nsmallest_count = 1\n"
PATIENCE_S = 240


def as_stubs() -> None:
    """Let this process write jobs that name the stub classes, and its children find them."""
    os.environ["PYTHONPATH"] = os.pathsep.join((str(HERE.parent / "src"), str(HERE)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # and so its children
    importlib.import_module("stub_site")  # its networks are known from here on
    os.environ["OMP_NUM_THREADS"] = "1"
    job.CONTROLLER = rules.CONTROLLER = "stub_site.StubServerController"  # type: ignore[misc]
    job.EXECUTOR = rules.EXECUTOR = "stub_site.StubClientExecutor"  # type: ignore[misc]


def study_for(
    megabytes: int, sites: Sequence[str], epochs: int, deadline: float = 900.0, commit: int = 1
) -> Study:
    """A study of a stub network. epochs: more than any job makes. commit: rounds between two."""
    return study_for_sites(
        parse_study(
            {
                "name": f"load-{megabytes}",
                "data": {"root": "nowhere", "train": list(sites), "external": [TESTER]},
                "net": {"preset": f"mb{megabytes}", "stem": [1, 1, 1]},
                "train": {"epochs": epochs, "batch": DRAWN * len(sites)},
                "federation": {
                    "quorum": max(1, len(sites) // 2),
                    "deadline": deadline,
                    "commit": commit,
                    "overlap": "ignore",
                },
            }
        )
    )


@dataclass
class Federation:
    """Kits below `out` and their processes by name."""

    out: Path
    sites: tuple[str, ...]
    running: dict[str, subprocess.Popen[bytes]]

    def kit(self, name: str) -> Kit:
        role = {"server": "server", "lead": "lead"}.get(name, "site")
        return open_kit(self.out / name, role)  # type: ignore[arg-type]

    def start(self, name: str) -> None:
        kit = self.kit(name)
        process: ProcessCommand = (
            server_process(kit.root, kit.work, kit.org)
            if name == "server"
            else site_process(kit.root, kit.work, kit.name, kit.org)
        )
        with (self.out / f"{name}.log").open("ab") as said:
            self.running[name] = subprocess.Popen(
                process.argv, env=dict(process.env), cwd=process.folder, stdin=subprocess.DEVNULL,
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def end(self, name: str, number: int = signal.SIGKILL) -> None:
        """Kill a kit's process and those it started."""
        child = self.running.pop(name)
        for pid in (child.pid, *descendants(child.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        child.wait()

    def approve(self, study: Study) -> None:
        text = make_job(study, 1).study
        for site in self.sites:
            kit = self.kit(site)
            approve(text, "The benchmark", kit.approvals, load_policy(kit.policy))

    def server_job(self) -> int | None:
        """The process of the job under way on the server."""
        for pid in descendants(self.running["server"].pid):
            with suppress(OSError):
                if b"runner_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None


@contextmanager
def federation(out: Path, sites: Sequence[str]) -> Iterator[tuple[Federation, AdminSession]]:
    """Provisioned, started and connected while the block runs; all processes are gone after it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    plan = parse_plan(
        {
            "name": "load",
            "server": {"host": "127.0.0.1", "port": port, "listen": "loopback"},
            "lead": {"name": LEAD, "org": "university"},
            "sites": [{"name": s, "org": f"{s}_hospital"} for s in (*sites, TESTER)],
        }
    )
    make_start_up_kits(plan, out, POLICY)
    for name in ("server", *sites):
        path = out / name / "local/resources.json"
        found = json.loads(path.read_text())
        found["class_allow_list"] += [f"stub_site.{c}" for c in CLASSES]
        path.write_text(json.dumps(found))
    fed = Federation(out, tuple(sites), {})
    with ExitStack() as stack:
        stack.callback(lambda: [fed.end(name) for name in list(fed.running)])
        fed.start("server")
        time.sleep(3)
        for site in sites:
            fed.start(site)
        lead = fed.kit("lead")
        link = AdminSession(lead.root, lead.name, lead.own / "session.log")
        stack.callback(link.close)
        wait_for_sites(link, sites)
        yield fed, link


def wait_for_sites(link: AdminSession, sites: Sequence[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(LinkError):
            if link.sites().keys() >= set(sites):
                return
        time.sleep(1)
    raise SystemExit(f"not all of {', '.join(sites)} connected within {PATIENCE_S} s")


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, deepest last."""
    out = []
    for task in Path("/proc").glob(f"{pid}/task/*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                out += [child, *descendants(child)]
    return out


def held(pid: int, key: str = "VmRSS") -> float:
    """Megabytes (10^6 bytes) of a process: `VmRSS` now, or `VmHWM` at its peak; 0 if gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def open_files(pid: int) -> int:
    """File descriptors of a process; 0 if it is gone."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def forget_peak(pid: int) -> None:
    """Let `VmHWM` begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class Watch:
    """Notes the peaks of the server's parent process and of its job's while the block runs."""

    def __init__(self, fed: Federation) -> None:
        self._fed = fed
        self.parent = self.job = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        forget_peak(self._fed.running["server"].pid)
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.3):
            self.parent = max(self.parent, held(self._fed.running["server"].pid, "VmHWM"))
            pid = self._fed.server_job()
            if pid is not None:
                self.job = max(self.job, held(pid, "VmHWM"))
