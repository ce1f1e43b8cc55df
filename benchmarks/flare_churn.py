"""Whether a long run with sites that come and go makes the server grow: memory and open files.

    python benchmarks/flare_churn.py --rounds 100 --segment 100
    python benchmarks/flare_churn.py --rounds 100 --segment 20 --kills 0.02 --deadline 20

Sixteen sites that do not train, under the supervisor, on one machine over mutual TLS. In each
round a site answers with a failure with probability `--away`, and its processes are killed and
started anew with probability `--kills`. Slopes by least squares over the rounds, with their 95 %
interval as if rounds were independent; a segment's first rounds are left out of its job's slope.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from loopback import TESTER, Federation, as_stubs, federation, held, open_files, study_for

from gliofed.deployment.run_status import RunStatus
from gliofed.deployment.supervisor import (
    LeadOrders,
    RetryLimits,
    Supervisor,
    run_folder,
    write_orders,
)
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.withdrawals import record_change

WARM = 10
"""Rounds of a segment, and of the whole, until which caches fill."""


@dataclass(frozen=True)
class Look:
    round: int
    job: int
    job_mb: float
    job_files: int
    parent_mb: float
    parent_files: int


class Churn:
    """Hears of each round; looks at the server, then kills whom chance names."""

    def __init__(self, fed: Federation, folder: Path, rounds: int, kills: float) -> None:
        self._fed, self._folder, self._rounds, self._kills = fed, folder, rounds, kills
        self._chance = random.Random(7)
        self._lock = threading.Lock()
        self.seen: list[Look] = []
        self.killed, self.done, self.away = 0, 0, 0

    def __call__(self, status: RunStatus) -> None:
        done = len(status.points)
        if done <= self.done:
            return
        self.away = sum(len(p.refused) for p in status.points)
        self.done = done
        job, parent = self._fed.server_job() or 0, self._fed.running["server"].pid
        self.seen.append(Look(done, job, held(job), open_files(job), held(parent),
                              open_files(parent)))  # fmt: skip
        if done % 10 == 0:
            print(f"  round {done}: {self.seen[-1]}, load {os.getloadavg()[0]:.1f}", flush=True)
        if done >= self._rounds:
            write_orders(self._folder, LeadOrders(stop=True))
            return
        for site in self._fed.sites:
            if self._chance.random() < self._kills:
                self.killed += 1
                self._fed.end(site)
                self._fed.start(site)


def slope(rounds: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Least squares, and half the width of its 95 % interval."""
    middle = statistics.fmean(rounds)
    spread = sum((r - middle) ** 2 for r in rounds)
    fit = statistics.linear_regression(rounds, values)
    rest = [v - fit.intercept - fit.slope * r for r, v in zip(rounds, values, strict=True)]
    error = (sum(e * e for e in rest) / (len(rest) - 2) / spread) ** 0.5
    return fit.slope, 1.96 * error


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--sites", type=int, default=16)
    args.add_argument("--megabytes", type=int, default=6)
    args.add_argument("--rounds", type=int, default=100)
    args.add_argument("--segment", type=int, default=100)
    args.add_argument("--away", default="0.1")
    args.add_argument("--kills", type=float, default=0.0)
    args.add_argument("--seconds", type=float, default=460, help="after which the run is stopped")
    args.add_argument("--deadline", type=float, default=30, help="seconds of a round at most")
    args.add_argument("--keep", type=Path)
    asked = args.parse_args()
    as_stubs()
    os.environ["GLIOFED_STUB_AWAY"] = asked.away
    names = [f"s{n:02d}" for n in range(asked.sites)]
    study = study_for(asked.megabytes, names, 10_000, asked.deadline)
    with (
        tempfile.TemporaryDirectory() as place,
        federation(asked.keep or Path(place) / "kits", names) as (fed, link),
    ):
        fed.approve(study)
        kit = fed.kit("lead")
        folder = run_folder(kit, study)
        server = fed.kit("server")
        log = AuditLog(server.audit, "server")
        record_change(server.work / folder.name, TESTER, "withdraw", log)
        churn = Churn(fed, folder, asked.rounds, asked.kills)
        patience = RetryLimits(poll=0.3, gather=40, silent=240, rounds=asked.segment)
        late = threading.Timer(asked.seconds, lambda: write_orders(folder, LeadOrders(stop=True)))
        late.daemon = True
        late.start()
        started = time.monotonic()
        end = Supervisor(kit, study, link, churn, patience).run()
        took = time.monotonic() - started
    print(f"{end.state}: {churn.done} rounds in {took:.0f} s, {churn.killed} kills, "
          f"{churn.away} answers missing of {churn.done * asked.sites}")  # fmt: skip
    show(churn.seen)


def show(seen: Sequence[Look]) -> None:
    print("| process | rounds | MB, first to last | MB a round (95 % interval) | files, min to max "
          "| files a round |")  # fmt: skip
    print("|---|---|---|---|---|---|")
    whole = [look for look in seen if look.round > WARM]
    row("server", [(s.round, s.parent_mb, s.parent_files) for s in whole])
    for job, looks in groupby((s for s in seen if s.job), key=lambda s: s.job):
        found = list(looks)
        warm = [s for s in found if s.round - found[0].round >= min(WARM, len(found) // 2)]
        row(f"job {job}", [(s.round, s.job_mb, s.job_files) for s in warm if s.job_mb])


def row(name: str, found: Sequence[tuple[int, float, int]]) -> None:
    if len(found) < 4:
        print(f"| {name} | {len(found)} looks: too few |")
        return
    rounds, sizes, files = ([float(f[i]) for f in found] for i in range(3))
    (grows, half), (opens, wide) = slope(rounds, sizes), slope(rounds, files)
    print(f"| {name} | {rounds[0]:.0f} to {rounds[-1]:.0f} | {sizes[0]:.0f} to {sizes[-1]:.0f} "
          f"| {grows:+.2f} ({grows - half:+.2f} to {grows + half:+.2f}) "
          f"| {min(files):.0f} to {max(files):.0f} | {opens:+.3f} (± {wide:.3f}) |")  # fmt: skip


if __name__ == "__main__":
    main()
