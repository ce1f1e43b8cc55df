"""Sites with made-up gradients that take part in secret sums, without any training."""

from __future__ import annotations

import dataclasses

import torch

from gliofed.errors import GliofedError
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import CountsRequest, TrainingRequest, load_request
from gliofed.federated.privacy.halves import SiteSetup
from gliofed.federated.privacy.identity import UNSIGNED
from gliofed.federated.privacy.server import SecretSums
from gliofed.federated.privacy.site import SummedSite
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.wire import read_note
from gliofed.markers import MARKERS
from gliofed.types import Stat, Update

NAMES = tuple("abcdefg")
MODEL = {"up.0.weight": torch.zeros(40, 5), "mask.weight": torch.zeros(3)}


def counts_of(number: int) -> LabelCounts:
    classes = {m.id: tuple(number + i for i, _ in enumerate(m.classes)) for m in MARKERS}
    return LabelCounts(
        10 + 3 * number, 4, {k: v if number < 3 else (0,) * len(v) for k, v in classes.items()}
    )


def gradient_of(site: str, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(ord(site))
    return {k: scale * torch.randn(t.shape, generator=generator) for k, t in MODEL.items()}


def training(number: int = 0) -> TrainingRequest:
    return TrainingRequest("run", "0" * 32, number, 99, 3, MODEL, {}, 100, {})


class MadeUpSite:
    """One site. gradient: None where it has no case of the batch."""

    def __init__(self, name, study, folder, identity=UNSIGNED, min_sites=3):
        self.name, self.gradient = name, gradient_of(name)
        self.counts = counts_of(NAMES.index(name))
        self.half = SummedSite(SiteSetup(name, study, folder / name, identity, min_sites))

    def respond(self, request, response):
        if self.half.respond(request, response):
            return
        match load_request(request):
            case CountsRequest() as asked:
                self.half.save_counts(response, asked, self.counts)
            case TrainingRequest() as asked:
                update = Update(asked.run, asked.round, asked.nonce, self.name, {}, 0, {}, {})
                if self.gradient is not None:
                    stats = {"mask": Stat(0.5 * len(self.name), 2)}
                    update = dataclasses.replace(
                        update, tensors=self.gradient, cases=2, stats=stats
                    )
                self.half.save_update(response, asked, update, self.counts)


class MadeUpEngine:
    """gone: (site, kind of request) that get no response, "late": whose response comes too late.

    change: called with site, kind and file of each response, which it may rewrite.
    """

    def __init__(self, sites, folder, change=lambda site, kind, file: None):
        self.sites, self.folder, self.change = list(sites), folder, change
        self.gone, self.late, self.requests = set(), set(), []

    def send(self, request):
        kind = read_note(request)["kind"]
        self.requests.append(kind)
        for site in self.sites:
            if (site.name, kind) in self.gone:
                yield SiteReply(site.name, None, "gone")
                continue
            file = self.folder / f"response-{site.name}"
            try:
                site.respond(request, file)
            except GliofedError as error:
                yield SiteReply(site.name, None, f"{type(error).__name__}: {error}")
                continue
            if (site.name, kind) in self.late:
                yield SiteReply(site.name, None, "late")
                continue
            self.change(site.name, kind, file)
            yield SiteReply(site.name, file)


def federation(study, folder, names=NAMES, **options):
    """Sites, engine and the secret sums over them."""
    sites = [MadeUpSite(name, study, folder) for name in names]
    engine = MadeUpEngine(sites, folder, **options)
    return sites, engine, SecretSums(engine, FederatedRun(study, "run", 1, folder))


def plain_sum(sites) -> dict[str, torch.Tensor]:
    known = [s.gradient for s in sites if s.gradient is not None]
    return {k: sum(g[k].double() for g in known) for k in MODEL}
