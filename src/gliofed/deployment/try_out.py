"""`gliofed federation try`: a federation on one machine, with one process a party.

    OUT/hospitals/<site>/   phantom patients          OUT/kits/<party>/   as `gliofed provision`
    OUT/study.toml, OUT/federation.toml               OUT/logs/<party>.log

The processes run the same commands as between hospitals, connected over mutual TLS.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.data.phantom import HOSPITALS, write_phantom
from gliofed.deployment.federation_plan import AUTHORITY, LEAD, SERVER, load_plan
from gliofed.deployment.kit import open_kit
from gliofed.deployment.provision import make_start_up_kits
from gliofed.deployment.run_status import RunStatus, read_status
from gliofed.deployment.supervisor import run_folder
from gliofed.errors import GliofedError
from gliofed.experiments.demo import SEED, demo_study
from gliofed.federated.governance.default_policy import DEFAULT_POLICY_TOML
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.processes import cores, end_groups, starter
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.settings import toml_of
from gliofed.study import Study, load_study, study_toml

TRAIN: Final = ("north", "harbour", "lakeside")
EXTERNAL: Final = ("university",)
EPOCHS: Final = 12
_POLL_SECONDS: Final = 0.2
_END_SECONDS: Final = 40.0
_SHOWN_LINES: Final = 5


@dataclass(frozen=True)
class TryOutFolder:
    """The folder of a trial federation. root: an absolute path."""

    root: Path

    @property
    def study(self) -> Path:
        """The study file."""
        return self.root / "study.toml"

    @property
    def kits(self) -> Path:
        """Folder of the start-up kits."""
        return self.root / "kits"

    def command(self, party: str) -> tuple[str, ...]:
        """The command of a party: the server, the lead, or a site."""
        kit = str(self.kits / party)
        if party == SERVER:
            return ("gliofed", "serve", kit)
        if party == LEAD:
            return ("gliofed", "start", str(self.study), "--kit", kit)
        data, store = self.root / "hospitals" / party, self.root / "stores" / party
        return ("gliofed", "join", kit, "--data", str(data), "--store", str(store), "--yes")

    def log(self, party: str) -> Path:
        """The file with what the party prints."""
        return self.root / "logs" / f"{party}.log"


def try_out(
    out: Path, print_line: Callable[[str], None], progress: Progress = NO_PROGRESS
) -> RunStatus:
    """Train a phantom federation on this machine and return its final status.

    print_line: called with the command of each party, then with each line that the lead prints.
    With the same `out`, training resumes after the last committed round. Raises GliofedError where
    a party ends before the study does. All parties have ended when this returns.
    """
    place = TryOutFolder(out.resolve())
    with alone_in(place.root):
        progress.stage(f"drawing phantom patients for {len(TRAIN + EXTERNAL)} hospitals")
        study = trial_study(place.root)
        names = (*study.data.train, *study.data.external)
        write_phantom(place.root / "hospitals", [h for h in HOSPITALS if h.name in names], SEED)
        if not (place.kits / AUTHORITY).exists():
            make_kits(place, study)
        progress.stage("running the federation")
        log = place.log(LEAD)
        before = log.stat().st_size if log.exists() else 0  # of earlier trials
        with running_parties() as parties:
            for party in (SERVER, *TRAIN, *EXTERNAL, LEAD):
                print_line(f"{party}$ {shlex.join(place.command(party))}")
                parties[party] = start_party(place, party)
            print_lead_output(place, parties, before, print_line)
        return read_status(run_folder(open_kit(place.kits / LEAD, "lead"), load_study(place.study)))


def trial_study(root: Path) -> Study:
    """The demo's network on three of its hospitals, tested at a fourth."""
    demo = demo_study(root / "hospitals")
    return dataclasses.replace(
        demo,
        name="trial",
        data=dataclasses.replace(demo.data, train=TRAIN, external=EXTERNAL),
        train=dataclasses.replace(demo.train, epochs=EPOCHS),
        federation=dataclasses.replace(demo.federation, quorum=2, deadline=600.0, share_model=True),
    )


def make_kits(place: TryOutFolder, study: Study, host: str = "127.0.0.1") -> None:
    """Write the study and the federation file, and make the kits. host: of the server."""
    write_text(place.study, study_toml(study))
    plan = place.root / "federation.toml"
    write_text(plan, _plan_toml(host, (*study.data.train, *study.data.external)))
    make_start_up_kits(load_plan(plan), place.kits, DEFAULT_POLICY_TOML)


def _plan_toml(host: str, sites: tuple[str, ...]) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    listen = "loopback" if host.startswith("127.") else "all"
    server = {"host": host, "port": port, "listen": listen}
    lead = {"name": "lead@example.org", "org": "university"}
    named = [{"name": name, "org": name} for name in sites]
    return toml_of(
        {"name": "trial", "study": "study.toml", "sites": named, "server": server, "lead": lead}
    )


def start_party(
    place: TryOutFolder, party: str, under: tuple[str, ...] = (), more: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a party's command in a new process group, with its share of the cores.

    under: a command line put before it. more: further arguments of the command.
    """
    threads = str(max(1, cores() // len(TRAIN)))
    place.log(party).parent.mkdir(exist_ok=True)
    argv = [*under, sys.executable, "-m", "gliofed.cli.main", *place.command(party)[1:], *more]
    with place.log(party).open("ab") as log:
        return subprocess.Popen(  # noqa: S603  (our own command)
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **starter(), "OMP_NUM_THREADS": threads},
            start_new_session=True,
        )


@contextmanager
def running_parties() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A dictionary of processes, which are ended after the block, the sites before the server."""
    parties: dict[str, subprocess.Popen[bytes]] = {}
    try:
        yield parties
    finally:
        end_groups([*reversed(parties.values())], _END_SECONDS)


def print_lead_output(
    place: TryOutFolder,
    parties: Mapping[str, subprocess.Popen[bytes]],
    before: int,
    print_line: Callable[[str], None],
) -> None:
    """Print the lead's output until its command ends.

    before: bytes of its log when it was started. Raises GliofedError where another party ends
    first.
    """
    with place.log(LEAD).open(encoding="utf-8") as printed:
        printed.seek(before)
        while True:
            ended = parties[LEAD].poll() is not None
            for line in printed:
                print_line(line.rstrip("\n"))
            if ended:
                return
            for party, child in parties.items():
                if party != LEAD and child.poll() is not None:
                    raise GliofedError(_end_message(place, party, child.returncode))
            time.sleep(_POLL_SECONDS)


def _end_message(place: TryOutFolder, party: str, status: int) -> str:
    lines = place.log(party).read_text(encoding="utf-8", errors="replace").splitlines()
    return (
        f"{party} ended with status {status} before the study did; the end of {place.log(party)}:\n"
        + "\n".join(lines[-_SHOWN_LINES:])
    )
