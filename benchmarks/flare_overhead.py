"""What the transport costs: seconds a round beyond training, and the server's peak memory.

    python benchmarks/flare_overhead.py --megabytes 30 --sites 3 --rounds 7 --turns 2

Sites that do not train, on one machine over mutual TLS, with gliofed and with FLARE's own FedAvg
of the same tensors: the same kits and server, jobs taking turns. FLARE's model is on the disk after
each round, gliofed's after every `--commit` rounds; the first two rounds of each job are left out,
with all others before gliofed's first commit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from loopback import Federation, Watch, as_stubs, federation, study_for

from gliofed.deployment.training_job import make_job
from gliofed.federated.flare.admin_session import AdminSession
from gliofed.federated.flare.job import write_job
from gliofed.federated.governance.audit_verification import read_log
from gliofed.study import Study

LEFT_OUT = 2


@dataclass
class Measured:
    seconds: list[float] = field(default_factory=list)
    job: float = 0.0
    parent: float = 0.0


def follow(fed: Federation, link: AdminSession, job: Path, into: Measured) -> None:
    with Watch(fed) as watch:
        number = link.submit(job)
        while not (state := link.state(number)).startswith("FINISHED"):
            time.sleep(1)
    print(f"  {job.name}: {state}, load {os.getloadavg()[0]:.1f}", flush=True)
    into.job, into.parent = max(into.job, watch.job), max(into.parent, watch.parent)


def ours(fed: Federation, link: AdminSession, study: Study, rounds: int, into: Measured) -> None:
    segment = make_job(study, rounds, fed.sites)
    audit = fed.kit("server").audit
    before = len(list(read_log(audit))) if audit.is_file() else 0
    job = write_job(fed.out / "jobs", "gliofed", segment.plain, fed.sites, 1)
    follow(fed, link, job, into)
    made = [one for one in list(read_log(audit))[before:] if one.event == "round-committed"]
    ends = [(int(one.fields["round"]), datetime.fromisoformat(one.at).timestamp()) for one in made]
    into.seconds += between(ends, rounds)


def peer(fed: Federation, link: AdminSession, megabytes: int, rounds: int, into: Measured) -> None:
    beats = fed.out / "beats"
    beats.write_text("")
    root = write_job(fed.out / "jobs", "peer", {}, fed.sites, 1)
    server = root / "server/config/config_fed_server.json"
    plain = json.loads(server.read_text())
    plain["workflows"] = [{"id": "peer", "path": "stub_site.PeerFedAvg", "args": {
        "megabytes": megabytes, "beats": str(beats), "num_clients": len(fed.sites),
        "num_rounds": rounds}}]  # fmt: skip
    server.write_text(json.dumps(plain))
    site = root / "site/config/config_fed_client.json"
    plain = json.loads(site.read_text())
    plain["executors"] = [{"tasks": ["train"], "executor": {"path": "stub_site.PeerExecutor"}}]
    site.write_text(json.dumps(plain))
    follow(fed, link, root, into)
    into.seconds += between(
        list(enumerate(map(json.loads, beats.read_text().splitlines()))), rounds
    )


def between(ends: list[tuple[int, float]], rounds: int) -> list[float]:
    """Seconds a round after those left out. ends: a round's number and the time of its commit."""
    if not ends or (ends[-1][0] + 1) % rounds:
        raise SystemExit(f"round {rounds} was not committed; see the logs")
    pairs = itertools.pairwise(ends)
    found = [(b - a) / (n - m) for (m, a), (n, b) in pairs if m % rounds >= LEFT_OUT - 1]
    print("   ", " ".join(f"{s:.2f}" for s in found), flush=True)
    return found


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--megabytes", type=int, default=30)
    args.add_argument("--sites", type=int, default=3)
    args.add_argument("--rounds", type=int, default=7)
    args.add_argument("--turns", type=int, default=2)
    args.add_argument("--commit", type=int, default=1, help="rounds between two of gliofed's")
    args.add_argument("--only", choices=("gliofed", "peer"))
    args.add_argument("--keep", type=Path, help="folder for kits and logs; else they are dropped")
    asked = args.parse_args()
    as_stubs()
    names = [f"s{n:02d}" for n in range(asked.sites)]
    study = study_for(asked.megabytes, names, 1_000, commit=asked.commit)
    mine, theirs = Measured(), Measured()
    with tempfile.TemporaryDirectory() as place:
        out = asked.keep or Path(place) / "kits"
        with federation(out, names) as (fed, link):
            fed.approve(study)
            for turn in range(asked.turns):
                print(f"turn {turn + 1} of {asked.turns}", flush=True)
                if asked.only != "peer":
                    ours(fed, link, study, asked.rounds, mine)
                if asked.only != "gliofed":
                    peer(fed, link, asked.megabytes, asked.rounds, theirs)
    show(asked.megabytes, asked.sites, mine, theirs)


def show(megabytes: int, sites: int, mine: Measured, theirs: Measured) -> None:
    print("| model, MB | sites | who | rounds | s a round, median (range) | peak of the job, MB "
          "| peak of the server, MB | ratio of medians |")  # fmt: skip
    print("|---:|---:|---|---:|---|---:|---:|---:|")
    both = mine.seconds and theirs.seconds
    for name, one in (("gliofed", mine), ("FLARE FedAvg", theirs)):
        if not one.job:
            continue
        middle, least, most = (f(one.seconds or [math.nan]) for f in (statistics.median, min, max))
        ratio = f"{middle / statistics.median(theirs.seconds):.2f}" if both and one is mine else ""
        print(f"| {megabytes} | {sites} | {name} | {len(one.seconds)} | {middle:.2f} "
              f"({least:.2f} to {most:.2f}) | {one.job:.0f} "
              f"| {one.parent:.0f} | {ratio} |")  # fmt: skip


if __name__ == "__main__":
    main()
