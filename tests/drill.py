"""A federation of real processes to do harm to: every party the verb that it would type.

A `Drill` is three small hospitals, a lead and a server below one folder. Faults are done from
outside: signals, a proxy, network namespaces, a small disk. What is seen is read from what the
parties leave: audit logs, the server's committed rounds, the lead's status.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path

import torch
from conftest import write_hospital

import gliofed
from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import open_kit
from gliofed.deployment.kit_identity import KitIdentity
from gliofed.deployment.run_status import read_status
from gliofed.deployment.site_data import make_client, read_cases
from gliofed.deployment.training_job import run_id, study_for_sites
from gliofed.deployment.try_out import TryOutFolder, make_kits, running_parties, start_party
from gliofed.errors import AuditError, CheckpointError
from gliofed.federated.checkpoint import CommittedRound, last_committed
from gliofed.federated.client import Client
from gliofed.federated.governance.audit_verification import verify_lines
from gliofed.federated.governance.policy import load_policy
from gliofed.federated.linkage.site_decisions import read_decisions
from gliofed.federated.local import LocalEngine
from gliofed.federated.named_tensors import join_tensors
from gliofed.federated.server.exchange import Engine
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.testing import FinishedTest, run_test
from gliofed.runtime.files import write_text
from gliofed.study import Study, parse_study

TRAIN = ("east", "north", "west")
SITES = (*TRAIN, "outer")
POLICY = "min_cases = 3\nmin_batch = 2\nsmallest_count = 1\n"
DEADLINE = 20.0
PATIENCE = 240.0
"""Seconds that anything awaited may take."""


@dataclasses.dataclass(frozen=True)
class DrillSettings:
    """epochs: rounds of "label_aware", whose sites make a pass a round. host: of the server.

    federation: settings of the study's own table. policy: of every site. cases: of every hospital,
    of which a fifth is held out where it trains. shared: hospital to the id of a further patient.
    privacy: the study's table of noise; empty: none.
    """

    epochs: int
    deadline: float = DEADLINE
    host: str = "127.0.0.1"
    train: tuple[str, ...] = TRAIN
    batch: int = 2
    federation: Mapping[str, object] = field(default_factory=lambda: {"method": "label_aware"})
    policy: str = POLICY
    cases: int = 6
    shared: Mapping[str, str] = field(default_factory=dict)
    privacy: Mapping[str, float] = field(default_factory=dict)


def drill_study(root: Path, settings: DrillSettings) -> Study:
    """A net of some MB on cubes of 16 voxels: seconds a round, mostly the transport's.

    One of the hospitals that train may be missing.
    """
    train = settings.train
    return parse_study({
        "name": "drill",
        "data": {"root": str(root / "hospitals"), "train": list(train),
                 "external": ["outer"]},
        "grid": {"patch": [16, 16, 16], "spacing_mm": [2, 2, 2]},
        "prepare": {"brain": "stripped", "register": False, "space": "scanner", "bias": False},
        "quality": {"brain_litres": [0, 9], "alignment": 0},
        "train": {"epochs": settings.epochs, "batch": settings.batch},
        "federation": {"quorum": len(train) - 1, "deadline": settings.deadline,
                       **settings.federation},
        "score": {"bootstrap": 100},
        **({"privacy": dict(settings.privacy)} if settings.privacy else {}),
    })  # fmt: skip


@dataclasses.dataclass
class Drill:
    """place: where it lies. parties: the processes, by name."""

    place: TryOutFolder
    study: Study
    parties: dict[str, subprocess.Popen[bytes]]
    segment: int = 20

    # parties

    @property
    def sites(self) -> tuple[str, ...]:
        return (*self.study.data.train, *self.study.data.external)

    def start(self, *names: str) -> None:
        for name in names:
            more = ("--rounds-per-job", str(self.segment)) if name == LEAD else ()
            self.parties[name] = start_party(self.place, name, more=more)

    def start_in(self, namespace: str, name: str) -> None:
        """Start a party in a network namespace."""
        self.parties[name] = start_party(self.place, name, ("ip", "netns", "exec", namespace))

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        """Send a signal to the verb alone, and wait until it and its children are gone."""
        child = self.parties.pop(name)
        child.send_signal(number)
        child.wait(PATIENCE)
        self.wait(lambda: not self.processes(name), f"the processes of {name} have ended")

    def kill_all(self, name: str) -> None:
        """SIGKILL every process of a party at once, as a machine that goes down."""
        child = self.parties.pop(name)
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait(PATIENCE)

    def signal_all(self, name: str, number: int) -> None:
        for pid in self.processes(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self, name: str = "") -> list[int]:
        """Processes that name the kit of a party, or that of any, in their arguments."""
        kit = str(self.place.kits / name).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                said = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if any(a == kit or a.startswith(kit + b"/") for a in said.split(b"\0")):
                found.append(int(entry.name))
        return found

    def job_processes(self, name: str) -> list[int]:
        """The site's process for a segment."""
        found = []
        for pid in self.processes(name):
            with suppress(OSError):
                if b"worker_process" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
                    found.append(pid)
        return found

    # what is seen

    @property
    def run(self) -> str:
        return run_id(study_for_sites(self.study))

    def work(self, name: str) -> Path:
        return self.place.kits / name / "gliofed/work" / self.run

    def log(self, name: str) -> list[gliofed.LogLine]:
        path = self.place.kits / name / "gliofed/audit.jsonl"
        try:
            return list(gliofed.read_log(path)) if path.exists() else []
        except (AuditError, OSError):  # in the middle of a line
            return []

    def last(self, name: str) -> gliofed.LogLine | None:
        lines = self.log(name)
        return lines[-1] if lines else None

    @property
    def committed(self) -> CommittedRound | None:
        """What the server has on its disk; raises where it is damaged."""
        while True:
            try:
                return last_committed(self.work(SERVER) / "rounds", self.run)
            except (FileNotFoundError, OSError):  # dropped between the listing and the reading
                continue

    @property
    def commits(self) -> int:
        return len([e for e in self.log(SERVER) if e.event == "round-committed"])

    @property
    def status(self) -> gliofed.RunStatus | None:
        try:
            return read_status(self.work(LEAD))
        except CheckpointError:
            return None

    @property
    def server_state(self) -> str:
        try:
            return read_status(self.work(SERVER)).state
        except CheckpointError:
            return ""

    def said(self, name: str) -> str:
        path = self.place.kits / name / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(
        self,
        ready: Callable[[], object],
        what: str,
        poll: float = 0.05,
        patience: float = PATIENCE,
    ) -> float:
        """Seconds until `ready`."""
        started = time.monotonic()
        while not ready():
            if time.monotonic() - started > patience:
                raise AssertionError(f"not within {patience:g} s: {what}")
            time.sleep(poll)
        return time.monotonic() - started

    def over(self) -> gliofed.RunStatus:
        """Wait for the lead's verb; how the run ended."""
        self.wait(lambda: self.parties[LEAD].poll() is not None, "the study is over")
        status = self.status
        assert status is not None
        return status

    def is_sound(self) -> str:
        """What is wrong with what the parties left, or nothing."""
        state = self.committed
        wrong = []
        requests = 1 if self.study.federation.privacy == "none" else 4
        numbers = [n for p in state.history for n in p.numbers] if state is not None else []
        if state is not None and numbers != list(range(1, state.rounds + 1)):
            wrong.append("rounds missing in the history")
        if state is not None and not all(v.isfinite().all() for v in state.weights.values()):
            wrong.append("weights not finite")
        if state is not None and max((p.seconds / p.rounds for p in state.history), default=0) > (
            requests * self.study.federation.deadline + 10
        ):
            wrong.append("a round took longer than the deadlines of its requests and 10 s")
        for name in (SERVER, LEAD, *self.sites):
            path = self.place.kits / name / "gliofed/audit.jsonl"
            if path.exists() and not verify_lines(path).sound:
                wrong.append(f"audit log of {name}")
        return "; ".join(wrong)


@contextmanager
def drill(root: Path, epochs: int, **changed: object):
    """A drill with nobody started yet; afterwards all have ended. changed: of the settings."""
    place = TryOutFolder(root.resolve())
    settings = DrillSettings(epochs, **changed)
    study = drill_study(place.root, settings)
    place.root.mkdir(parents=True, exist_ok=True)
    sites = (*study.data.train, *study.data.external)
    for number, name in enumerate(sites):
        own = [f"{n:02d}{name}" for n in range(settings.cases)]
        names = [*own, settings.shared[name]] if name in settings.shared else own
        rows = {p: (str(n % 2), "0", "unknown", "2") for n, p in enumerate(names)}
        write_hospital(place.root / "hospitals" / name, rows, seed=number + 1)
    make_kits(place, study, settings.host)
    for name in sites:
        policy = open_kit(place.kits / name, "site").policy
        write_text(policy, settings.policy)
        policy.chmod(0o600)
    with running_parties() as parties:
        yield Drill(place, study, parties)


def undisturbed(
    d: Drill, folder: Path, without: tuple[str, ...] = ()
) -> tuple[CommittedRound, FinishedTest]:
    """The same rounds and test in this process.

    without: sites that take no part.
    """
    state, sites = rounds_nearby(d, folder, without)
    study = study_for_sites(d.study)
    return state, run_test(LocalEngine(sites, folder), state, study, "near", folder)


def rounds_nearby(
    d: Drill,
    folder: Path,
    without: tuple[str, ...] = (),
    wrap: Callable[[Engine], Engine] = lambda engine: engine,
    rounds: int = 10**6,
) -> tuple[CommittedRound, list[Client]]:
    """The same rounds in this process, on as many threads as each of the drill's, and its sites.

    Patients that a site left out in the drill are left out here, too. without: sites that take no
    part. wrap: of the engine. rounds: at most.
    """
    study = study_for_sites(d.study)
    sites = []
    for name in (s for s in d.sites if s not in without):
        kit = open_kit(d.place.kits / name, "site")
        data = gliofed.SiteDataPaths(d.place.root / "hospitals" / name, folder / f"store-{name}")
        left_out = read_decisions(kit.work / d.run).left_out
        cases = [c for c in read_cases(study, kit, data) if c.case.patient not in left_out]
        sites.append(make_client(study, kit, cases, folder / name, load_policy(kit.policy)))
    train = [site for site in sites if site.name in study.data.train]
    engine = wrap(LocalEngine(train, folder))
    server = KitIdentity(open_kit(d.place.kits / SERVER, "server"), study.data.train)
    run = FederatedRun(study, "near", study.seeds[0], folder / "rounds", identity=server)
    return run_rounds(engine, run, should_stop=lambda done: done >= rounds), sites


def same_weights(a: CommittedRound, b: CommittedRound) -> bool:
    """Whether weights and the strategy's state have the same bits."""
    own, other = (join_tensors(x.weights, x.state) for x in (a, b))
    return own.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in own.items())


class Proxy:
    """A TCP proxy that can reset what goes through it, or let nothing pass."""

    def __init__(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(listen)
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """End every connection with a reset."""
        for pair in self._pairs:
            for one in pair:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.close()
        self._pairs.clear()

    def close(self) -> None:
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    near.close()
                    continue
                self._pairs.append((near, far))
                threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            with suppress(OSError):
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """What is in `folder` on a disk of its own size meanwhile (root alone may do it)."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@dataclasses.dataclass(frozen=True)
class Cable:
    """A link into a network namespace."""

    namespace: str
    near: str

    def down(self) -> None:
        _ip("link", "set", self.near, "down")

    def up(self) -> None:
        _ip("link", "set", self.near, "up")


@contextmanager
def cut_off(near: str, far: str) -> Iterator[Cable]:
    """A network namespace with the address `far`, on a link to `near` here (root alone may)."""
    cable = Cable(f"gliofed{os.getpid()}", f"gf{os.getpid()}"[:15])
    inside = f"{cable.near[:14]}x"
    _ip("netns", "add", cable.namespace)
    try:
        _ip(
            "link",
            "add",
            cable.near,
            "type",
            "veth",
            "peer",
            "name",
            inside,
            "netns",
            cable.namespace,
        )
        _ip("addr", "add", f"{near}/24", "dev", cable.near)
        cable.up()
        _ip("-n", cable.namespace, "addr", "add", f"{far}/24", "dev", inside)
        _ip("-n", cable.namespace, "link", "set", inside, "up")
        _ip("-n", cable.namespace, "link", "set", "lo", "up")
        yield cable
    finally:
        _ip("netns", "del", cable.namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
