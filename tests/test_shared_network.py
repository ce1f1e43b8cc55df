"""Sites of one process that train in one network: the same bits, and no more memory for more."""

from __future__ import annotations

import weakref

import pytest
from test_fed import CPU, make_sites
from test_strategies import equal, with_method

from gliofed.data.splits import Split
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.experiments.train_and_test import local_federation
from gliofed.federated.client_training import training_network
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.strategies.table import STRATEGIES
from gliofed.models.network import MultiTaskNet
from gliofed.runtime.progress import NoProgress


def federate(make_prepared, study, folder, network=None):
    sites = make_sites(make_prepared, study, folder, network=network)
    return run_rounds(LocalEngine(sites, folder), FederatedRun(study, "run", 1, folder / "rounds"))


@pytest.mark.slow
@pytest.mark.parametrize("method", STRATEGIES)
def test_one_network_and_one_a_site_end_with_the_same_bits(
    method, make_prepared, tiny_study, tmp_path
) -> None:
    study = with_method(tiny_study, method, epochs=2)
    own = federate(make_prepared, study, tmp_path / "own")
    one = training_network(study, CPU)
    shared = federate(make_prepared, study, tmp_path / "shared", one)
    assert shared.rounds > 1
    assert not any(p.refused for p in shared.history)
    assert equal(shared, own)


class CountedNetworks(NoProgress):
    """The most networks that there are at once while sites train."""

    def __init__(self, monkeypatch) -> None:
        self.most, self._alive = 0, weakref.WeakSet()
        made = MultiTaskNet.__init__

        def counted(net, spec) -> None:
            made(net, spec)
            self._alive.add(net)

        monkeypatch.setattr(MultiTaskNet, "__init__", counted)

    def update(self, done: float, total: float, detail: str) -> None:
        self.most = max(self.most, len(self._alive))


@pytest.mark.parametrize("sites", [1, 4])
def test_a_run_has_one_network_in_training_whatever_its_sites(
    sites, make_prepared, tiny_study, tmp_path, monkeypatch
) -> None:
    names = [f"site{n}" for n in range(sites)]
    prepared = {f"{n}/c": make_prepared("c", {"idh": "mutant"}, n) for n in names}
    cases = {n: (prepared[f"{n}/c"].case,) for n in names}
    run = ModelRun("federated", 1, Split("", cases, {}, (), ()), cases)
    networks = CountedNetworks(monkeypatch)
    context = RunContext(tiny_study, tmp_path, CPU, prepared)
    engine, federated = local_federation(context, run, networks)
    state = run_rounds(engine, federated)
    assert set(state.history[-1].merged) <= set(names)
    assert sum(p.merged.get(n, 0) for p in state.history for n in names) >= sites
    assert networks.most == 1
