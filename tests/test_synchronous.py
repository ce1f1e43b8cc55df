"""Synchronous rounds: pooled training's twin, and what a lost site, a kill or a policy changes."""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import suppress

import pytest
import torch

from gliofed.data.splits import Split
from gliofed.errors import PolicyError, UpdateError
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.plain_training import train_plainly
from gliofed.experiments.run_context import RunContext
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import (
    TrainingRequest,
    load_request,
    load_update,
    save_request,
    training_request_of,
)
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.wire import read_note
from gliofed.models.network import build_net
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import NetworkConfig

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


def federate(
    hospitals,
    study,
    folder,
    wrap=lambda e: e,
    should_stop=lambda done: False,
    initial=None,
    **setup,
):
    clients = [
        Client(SiteData(name, cases), ClientSetup(study, 1, folder / "sites" / name, CPU), **setup)
        for name, cases in hospitals.items()
    ]
    run = FederatedRun(study, "run", 1, folder / "rounds", initial)
    return run_rounds(wrap(LocalEngine(clients, folder)), run, should_stop=should_stop)


def pool(hospitals, study, out):
    prepared = {str(c.case): c for cases in hospitals.values() for c in cases}
    sites = {site: tuple(c.case for c in cases) for site, cases in hospitals.items()}
    run = ModelRun("pooled", 1, Split("external", {}, {}, (), ()), sites)
    context = RunContext(study, out, CPU, prepared)
    return train_plainly(context, run, NO_PROGRESS, lambda state: None)


def distance(one, other) -> float:
    """L2, without the biases of convolutions: a normalisation follows them, so they have no effect,
    and Adam turns the rounding errors that are their gradients into steps."""
    used = [k for k in one if not k.endswith("conv.bias")]
    return math.sqrt(sum(float((one[k] - other[k]).square().sum()) for k in used))


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(v, other[k]) for k, v in one.items())


@pytest.mark.slow
def test_pooled_training_is_its_twin(hospitals, tiny_study, tmp_path) -> None:
    study = with_settings(tiny_study, epochs=1)
    pooled = pool(hospitals, study, tmp_path / "pooled")
    federated = federate(hospitals, study, tmp_path / "federated")
    assert federated.schedule.rounds == federated.rounds == 5  # 19 cases in batches of 4
    start = build_net(NetworkConfig("small"), 1).state_dict()
    moved = distance(pooled.weights, start)
    assert distance(pooled.weights, federated.weights) < 1e-3 * moved
    losses, twin = pooled.history[-1].losses, federated.history[-1].losses
    assert losses == pytest.approx(twin, rel=1e-3)
    # another order of the same cases is another model
    mixed = {"x": [c for cases in hospitals.values() for c in cases]}
    assert (
        distance(pooled.weights, federate(mixed, study, tmp_path / "mixed").weights) > 0.1 * moved
    )


def test_the_first_gradient_is_that_of_the_pooled_batch(hospitals, tiny_study, tmp_path) -> None:
    """With one batch of all cases, before Adam could amplify a rounding error."""
    study = with_settings(tiny_study, epochs=1, batch=19)
    pooled = pool(hospitals, study, tmp_path / "pooled")
    federated = federate(hospitals, study, tmp_path / "federated")
    assert federated.rounds == 1
    assert pooled.history[0].gradient_norm == pytest.approx(
        federated.history[0].gradient_norm, rel=1e-5
    )
    for name, moment in pooled.state["exp_avg"].items():
        gap = (moment - federated.state["exp_avg"][name]).norm()
        assert gap < 5e-4 * moment.norm() + 1e-8, name  # 1e-8: biases before a norm are rounding
    for kind in ("exp_avg", "exp_avg_sq", "step"):
        assert set(pooled.state[kind]) == set(federated.state[kind])
    # no case has a 1p/19q label: its head has no step
    assert not any("codel" in name for name in federated.state["step"])


@pytest.mark.slow
def test_a_run_killed_in_any_round_ends_with_the_same_bits(hospitals, tiny_study, tmp_path) -> None:
    study = with_settings(tiny_study, epochs=2, commit=2)
    whole = federate(hospitals, study, tmp_path / "whole")
    assert [p.round + 1 for p in whole.history] == [2, 4, 5, 6, 8, 10]  # each pass ends with one
    for last in (1, 2, 5, 9):  # before and after a commit, at the end of a pass, in the last round
        folder = tmp_path / f"killed-{last}"
        with pytest.raises(KeyboardInterrupt):
            federate(hospitals, study, folder, wrap=lambda e, n=last: Dies(e, n))
        again = federate(hospitals, study, folder)
        assert same(again.weights, whole.weights), last
        for kind, tensors in whole.state.items():
            assert same(again.state[kind], tensors)
        assert [p.losses for p in again.history] == [p.losses for p in whole.history]


class Dies:
    """The server's process ends while it waits for the responses of a request."""

    def __init__(self, engine, requests: int) -> None:
        self.engine, self.left = engine, requests + 1  # the first asks for the counts

    def send(self, path):
        self.left -= 1
        for number, reply in enumerate(self.engine.send(path)):
            if self.left < 0 and number == 2:
                raise KeyboardInterrupt
            yield reply


@pytest.mark.slow
def test_a_stop_between_commits_loses_no_round(hospitals, tiny_study, tmp_path) -> None:
    study = with_settings(tiny_study, epochs=2, commit=4)
    whole = federate(hospitals, study, tmp_path / "whole")
    part = federate(hospitals, study, tmp_path / "part", should_stop=lambda done: done == 3)
    assert part.rounds == 3
    assert not part.complete
    assert same(federate(hospitals, study, tmp_path / "part").weights, whole.weights)


class Without:
    """An engine that has no response of some sites in some rounds."""

    def __init__(self, engine, sites, rounds) -> None:
        self.engine, self.sites, self.rounds = engine, sites, rounds

    def send(self, path):
        request = load_request(path)
        gone = getattr(request, "round", None) in self.rounds
        for reply in self.engine.send(path):
            yield (
                SiteReply(reply.site, None, "gone") if gone and reply.site in self.sites else reply
            )


@pytest.mark.slow
def test_a_lost_site_costs_its_part_of_the_batch_and_comes_back(
    hospitals, tiny_study, tmp_path
) -> None:
    study = with_settings(tiny_study, epochs=3)
    lost = range(3, 7)
    state = federate(hospitals, study, tmp_path, wrap=lambda e: Without(e, {"a", "c"}, lost))
    assert state.complete
    merged = {site: sum(p.merged.get(site, 0) for p in state.history) for site in hospitals}
    assert merged == {site: 15 - 4 * (site in "ac") for site in hospitals}
    assert all("gone" in p.refused["a"] for p in state.history if set(p.numbers) & set(lost))


class Watched:
    """An engine that records of each update: site, cases, number of tensors."""

    def __init__(self, engine, seen: list[tuple[str, int, int]]) -> None:
        self.engine, self.seen = engine, seen

    def send(self, path):
        trains = isinstance(load_request(path), TrainingRequest)
        for reply in self.engine.send(path):
            if trains:
                update = load_update(reply.response)
                self.seen.append((reply.site, update.cases, len(update.tensors)))
            yield reply


def test_a_site_without_a_case_in_the_batch_sends_nothing(hospitals, tiny_study, tmp_path) -> None:
    study = with_settings(tiny_study, epochs=1, batch=1)
    seen: list[tuple[str, int, int]] = []
    federate(hospitals, study, tmp_path, wrap=lambda e: Watched(e, seen))
    assert sum(cases for _, cases, _ in seen) == 18  # one has only the label of MGMT: one class
    assert {tensors > 0 for _, cases, tensors in seen if cases} == {True}
    assert {tensors for _, cases, tensors in seen if not cases} == {0}


@pytest.mark.parametrize("least", [2, 3])
def test_no_gradient_of_fewer_cases_than_the_policy_allows_leaves(
    hospitals, tiny_study, tmp_path, least
) -> None:
    large = {s: c for s, c in hospitals.items() if len(c) >= 3}
    study = with_settings(tiny_study, epochs=2, batch=4)
    policy = SitePolicy(min_cases=3, min_batch=least, smallest_count=1)
    seen: list[tuple[str, int, int]] = []
    federate(large, study, tmp_path, wrap=lambda e: Watched(e, seen), policy=policy)
    assert {cases for _, cases, _ in seen if 0 < cases < least} == set()
    for site, own in large.items():  # every case, once a pass
        assert sum(cases for name, cases, _ in seen if name == site) == 2 * len(own)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["bfloat16", "int8"])
def test_compressed_gradients_train_nearly_the_same_model(
    hospitals, tiny_study, tmp_path, how
) -> None:
    study = with_settings(tiny_study, epochs=2)
    small = with_settings(tiny_study, epochs=2, compress=how)
    whole = federate(hospitals, study, tmp_path / "whole")
    packed = federate(hospitals, small, tmp_path / "packed")
    sent = [sum(p.bytes_up for p in s.history) for s in (whole, packed)]
    assert sent[1] < (0.6 if how == "bfloat16" else 0.4) * sent[0]
    moved = distance(whole.weights, build_net(NetworkConfig("small"), 1).state_dict())
    assert 0 < distance(whole.weights, packed.weights) < moved
    part = federate(hospitals, small, tmp_path / "part", should_stop=lambda done: done == 3)
    assert part.rounds == 3
    assert same(federate(hospitals, small, tmp_path / "part").weights, packed.weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"class_weights": {"idh": (1.0, 0.0)}}, "too little weight to a class of idh"),
        ({"labelled": {"idh": 2}}, "counts 2 labels of idh"),
        ({"batches": 20}, "20 batches a pass for 19 cases"),
    ],
)
def test_a_request_that_singles_out_patients_is_refused(
    make_prepared, tiny_study, tmp_path, change, words
) -> None:
    cases = [
        make_prepared(f"a{i}", {"idh": ("wildtype", "mutant")[i % 2]}, "a", mask=False)
        for i in range(6)
    ]
    study = with_settings(tiny_study)
    policy = SitePolicy(min_cases=3, min_batch=3, smallest_count=3)
    client = Client(SiteData("a", cases), ClientSetup(study, 1, tmp_path, CPU), policy)
    honest = TrainingRequest(
        run="run",
        nonce="0" * 32,
        round=0,
        rounds=4,
        batches=2,
        weights=build_net(NetworkConfig("small"), 1).state_dict(),
        class_weights={"idh": (1.0, 1.0)},
        cases=19,
        labelled={"mask": 0, "idh": 6, "codel_1p19q": 0, "mgmt": 0, "grade": 0},
    )
    labelled = {**honest.labelled, **change.pop("labelled", {})}
    save_request(tmp_path / "request", dataclasses.replace(honest, labelled=labelled, **change))
    if words:
        with pytest.raises((PolicyError, UpdateError), match=words):
            client.respond(tmp_path / "request", tmp_path / "response")
    else:
        client.respond(tmp_path / "request", tmp_path / "response")
        assert load_update(tmp_path / "response").cases >= 3


def test_a_site_without_a_case_needs_only_the_note(hospitals, tiny_study, tmp_path) -> None:
    """Its response is the one that it would send after it had the model."""
    study = with_settings(tiny_study, epochs=1, batch=1)
    client = Client(SiteData("c", hospitals["c"]), ClientSetup(study, 1, tmp_path, CPU))
    weights = build_net(NetworkConfig("small"), 1).state_dict()
    without = 0
    for number in range(19):
        request = TrainingRequest(
            run="run",
            nonce="0" * 32,
            round=number,
            rounds=19,
            batches=19,
            weights=weights,
            class_weights={"idh": (1.0, 1.0), "grade": (1.0, 1.0, 1.0), "mgmt": (1.0, 1.0)},
            cases=19,
            labelled={"mask": 15, "idh": 12, "codel_1p19q": 0, "mgmt": 6, "grade": 12},
        )
        save_request(tmp_path / "request", request)
        client.respond(tmp_path / "request", tmp_path / "response")
        update = load_update(tmp_path / "response")
        bare = training_request_of(json.dumps(read_note(tmp_path / "request")))
        assert bare == dataclasses.replace(request, weights={})
        assert client.has_no_case(bare) == (update.cases == 0)
        if client.has_no_case(bare):
            without += 1
            client.respond_without_case(bare, tmp_path / "other")
            assert (tmp_path / "other").read_bytes() == (tmp_path / "response").read_bytes()
    assert without == 16  # of 19 rounds, with 3 cases


@pytest.mark.parametrize("note", [None, 3, "", "[]", "{", '{"kind": "count"}', "null"])
def test_a_note_of_no_training_request_is_none(note) -> None:
    with suppress(UpdateError):
        assert training_request_of(note) is None


def test_a_malformed_note_is_refused() -> None:
    with pytest.raises(UpdateError, match="its note lacks round, rounds"):
        training_request_of('{"kind": "train", "run": "r", "nonce": "n"}')
