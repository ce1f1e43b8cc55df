"""Seconds and bytes of a round with and without secret sums, with gradients that are given.

    python benchmarks/secret_sum.py --megabytes 12.5 150 --sites 3 7 16 --folder /dev/shm/sums

Requests, masks, files, checks, sums, AdamW: all that a round has but the training and the network
between machines, in one process on one thread, sites one after the other. Plain and secret rounds
alternate in one run. "a site" is the time of one site, "server" all but the sites; "at once" is the
ratio of one site and the server, as between hospitals, whose sites work at the same time. Seconds
are those of the processor, which other programs on the machine change little. Keys are agreed once
for 20 rounds: a twentieth of their time and bytes is in the columns of a round. A gradient is made
once and sent by every site. --compress int32: the secret rounds take 4 bytes a number, not 8.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest, load_request
from gliofed.federated.privacy.halves import SiteSetup
from gliofed.federated.privacy.identity import UNSIGNED
from gliofed.federated.privacy.slot import SLOTS
from gliofed.federated.privacy.table import mechanism_named
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.wire import read_note
from gliofed.markers import MARKERS
from gliofed.study import Study, parse_study
from gliofed.types import Update

TENSORS = 40
COUNTS = LabelCounts(40, 40, {m.id: (10,) * len(m.classes) for m in MARKERS})
Model = dict[str, Tensor]
CPU = 1
AGREEING = ("keys", "shares")
PLAIN = ("none", "none")
"""privacy and compress of the rounds compared with."""


def now() -> Tensor:
    """Seconds of the clock and of the processor."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


class Site:
    """Responds with a given gradient."""

    def __init__(self, name: str, study: Study, folder: Path, gradient: dict[str, Tensor]) -> None:
        self.name, self.gradient = name, gradient
        setup = SiteSetup(name, study, folder / name, UNSIGNED, 3)
        self.privacy = mechanism_named(study.federation.privacy).site(setup)

    def respond(self, request_file: Path, response: Path) -> None:
        if self.privacy.respond(request_file, response):
            return
        request = load_request(request_file)
        if isinstance(request, CountsRequest):
            self.privacy.save_counts(response, request, COUNTS)
        if isinstance(request, TrainingRequest):
            of = (request.run, request.round, request.nonce, self.name)
            self.privacy.save_update(
                response, request, Update(*of, self.gradient, 1, {}, {}), COUNTS
            )


class Engine:
    """Carries files in this process. bytes, seconds: of sites and of each kind of request."""

    def __init__(self, sites: list[Site], folder: Path) -> None:
        self.sites, self.folder = sites, folder
        self.bytes, self.seconds, self.whole = Counter(), Counter(), Counter()

    def send(self, request: Path) -> Iterator[SiteReply]:
        kind, started = read_note(request)["kind"], now()
        self.bytes[kind] += request.stat().st_size * len(self.sites)
        for site in self.sites:
            file, began = self.folder / f"response-{site.name}", now()
            site.respond(request, file)
            self.seconds[kind] = self.seconds[kind] + (now() - began)
            self.bytes[kind] += file.stat().st_size
            yield SiteReply(site.name, file)
        self.whole[kind] = self.whole[kind] + (now() - started)


def study_of(names: list[str], privacy: str, compress: str) -> Study:
    return parse_study(
        {
            "name": "sums",
            "data": {"root": ".", "train": names, "external": ["other"]},
            "train": {"epochs": 1000, "batch": 40},
            "federation": {"privacy": privacy, "compress": compress, "commit": 1000},
        }
    )


def measure(
    mode: tuple[str, str], count: int, weights: Model, gradient: Model, folder: Path
) -> dict[str, Tensor]:
    """Of one round: seconds in all, of a site, of an agreement; bytes of both."""
    names = [f"s{i:02d}" for i in range(count)]
    study = study_of(names, *mode)
    folder.mkdir(parents=True)
    engine = Engine([Site(n, study, folder, gradient) for n in names], folder)
    run = FederatedRun(study, "run", 1, folder / "rounds", lambda: weights)
    marks = []

    def stop(done: int) -> bool:
        marks.append((now(), *(dict(c) for c in (engine.seconds, engine.bytes, engine.whole))))
        return done == 2  # the first one finds cold caches

    run_rounds(engine, run, should_stop=stop)
    (first, seconds, sent, _), (last, seconds_after, sent_after, _) = marks[1], marks[2]
    rounds = [k for k in sent_after if k not in (*AGREEING, "count")]
    agreed = marks[0]
    return {
        "round": last - first,
        "site": sum(seconds_after[k] - seconds.get(k, 0) for k in rounds) / count,
        "bytes": torch.tensor([sum(sent_after[k] - sent.get(k, 0) for k in rounds)]).double(),
        "agreement": sum((agreed[3].get(k, torch.zeros(2)) for k in AGREEING), torch.zeros(2)),
        "agreement bytes": torch.tensor([sum(agreed[2].get(k, 0) for k in AGREEING)]).double(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[12.5, 150.0])
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 7, 16])
    parser.add_argument("--compress", choices=("none", "int32"), default="none")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(
        "MB | sites | processor s a round: plain | secret | ratio | a site: plain | secret | "
        "server: plain | secret | at once | clock ratio | bytes ratio | agreement s, MB"
    )
    for megabytes in options.megabytes:
        values = int(megabytes * 1e6 / 4 / TENSORS)
        weights = {f"up.{i}.conv.weight": torch.zeros(values) for i in range(TENSORS)}
        gradient = {k: 0.01 * torch.randn(values) for k in weights}
        for count in options.sites:
            found = {m: [] for m in (PLAIN, ("secure-sum", options.compress))}
            for _ in range(options.turns):
                for mode, own in found.items():
                    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                        own.append(measure(mode, count, weights, gradient, Path(folder) / "run"))
            show(megabytes, count, *(medians(own) for own in found.values()))


def medians(measured: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {k: torch.stack([m[k] for m in measured]).median(0).values for k in measured[0]}


def show(megabytes: float, count: int, plain: dict[str, Tensor], secret: dict[str, Tensor]) -> None:
    secret = dict(secret)
    secret["round"] = secret["round"] + secret["agreement"] / SLOTS
    secret["bytes"] = secret["bytes"] + secret["agreement bytes"] / SLOTS
    server = [float((m["round"] - count * m["site"])[CPU]) for m in (plain, secret)]
    wall, cpu = (secret["round"] / plain["round"]).tolist()
    sites = [float(m["site"][CPU]) for m in (plain, secret)]
    at_once = (sites[1] + server[1]) / (sites[0] + server[0])
    sent = float(secret["bytes"] / plain["bytes"])
    print(
        f"{megabytes:g} | {count} | {plain['round'][CPU]:.2f} | {secret['round'][CPU]:.2f} | "
        f"{cpu:.2f} | {plain['site'][CPU]:.3f} | {secret['site'][CPU]:.3f} | "
        f"{server[0]:.2f} | {server[1]:.2f} | {at_once:.2f} | {wall:.2f} | {sent:.3f} | "
        f"{secret['agreement'][CPU]:.2f}, {float(secret['agreement bytes']) / 1e6:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
