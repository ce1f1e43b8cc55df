"""Synchronous rounds: pooled training's twin, and what a lost site, a kill or a policy changes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gliofed.data.splits import Split
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.plain_training import train_plainly
from gliofed.experiments.run_context import RunContext
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import FederatedRun, SiteReply, run_rounds
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS

CPU = Device(torch.device("cpu"), bf16=False)
SIZES = {"a": 5, "b": 1, "c": 3, "d": 2, "e": 4, "f": 1, "g": 3}
KINDS = ({"idh": "mutant", "grade": "2"}, {"idh": "wildtype", "grade": "4"}, {"mgmt": "methylated"})


@pytest.fixture
def hospitals(make_prepared):
    """Seven hospitals of one to five cases; labels and masks differ from one to the next."""
    return {
        site: [
            make_prepared(f"{site}{i}", KINDS[(n + i) % 3], site, mask=(n + i) % 4 != 0)
            for i in range(size)
        ]
        for n, (site, size) in enumerate(SIZES.items())
    }


def with_settings(study, epochs=2, batch=4, **federation):
    train = dataclasses.replace(study.train, epochs=epochs, batch=batch)
    rules = dataclasses.replace(study.federation, **federation)
    return dataclasses.replace(study, train=train, federation=rules)


def federate(hospitals, study, folder, wrap=lambda e: e, should_stop=lambda done: False, **setup):
    clients = [
        Client(SiteData(name, cases), ClientSetup(study, 1, folder / "sites" / name, CPU), **setup)
        for name, cases in hospitals.items()
    ]
    run = FederatedRun(study, "run", 1, folder / "rounds")
    return run_rounds(wrap(LocalEngine(clients, folder)), run, should_stop=should_stop)


def pool(hospitals, study, out):
    prepared = {str(c.case): c for cases in hospitals.values() for c in cases}
    sites = {site: tuple(c.case for c in cases) for site, cases in hospitals.items()}
    run = ModelRun("pooled", 1, Split("external", {}, {}, (), ()), sites)
    context = RunContext(study, out, CPU, prepared)
    return train_plainly(context, run, NO_PROGRESS, lambda state: None)


def furthest(one, other) -> float:
    return max(float((v - other[k]).abs().max()) for k, v in one.items())


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.slow
def test_pooled_training_is_its_twin(hospitals, tiny_study, tmp_path) -> None:
    study = with_settings(tiny_study, epochs=3)
    pooled = pool(hospitals, study, tmp_path / "pooled")
    federated = federate(hospitals, study, tmp_path / "federated")
    assert federated.schedule.rounds == 3 * 5  # 19 cases, batches of 4
    assert federated.rounds == 15
    moved = furthest(pooled.weights, pool(hospitals, with_settings(tiny_study, epochs=1), tmp_path / "one").weights)
    assert furthest(pooled.weights, federated.weights) < 1e-4 < moved / 10
