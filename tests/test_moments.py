"""Moments that travel with the model: the same training, nothing kept at a site, and a gate."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from test_fed import CPU, LIMITS, add, training_request, update

import gliofed
from gliofed.errors import UpdateError
from gliofed.federated.aggregation.merge import StreamingMean
from gliofed.federated.aggregation.moments import KINDS, zero_moments
from gliofed.federated.aggregation.strategies import LABEL_AWARE
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.gate import UpdateGate
from gliofed.federated.governance.consent import what_leaves
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import TrainingRequest, load_request, load_update, save_update
from gliofed.federated.server.rounds import FederatedRun, SiteReply, run_rounds
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.network import build_net
from gliofed.types import OptimiserMoments


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(v, other[k]) for k, v in one.items())


def shared(study, **changes):
    rules = dataclasses.replace(study.federation, moments="shared", **changes)
    return dataclasses.replace(study, federation=rules)


MODEL = {
    "up.0.weight": torch.tensor([3.0, 0.0]),
    "mask.weight": torch.tensor([[4.0]]),
    "heads.idh.layers.1.weight": torch.tensor([0.0]),
}


@pytest.fixture
def sent(tmp_path):
    """Puts an update into a file, as a site does."""
    numbers = itertools.count()

    def write(one):
        path = tmp_path / f"update-{next(numbers)}"
        save_update(path, one)
        return path

    return write


@pytest.fixture
def sites(make_prepared, tiny_study, tmp_path):
    """Two hospitals of one kind of patient each."""

    def make(study, names=("a", "b")):
        kinds = {"a": {"idh": "mutant", "grade": "2"}, "b": {"idh": "wildtype", "grade": "4"}}
        return [
            Client(
                SiteData(n, [make_prepared(f"{n}{i}", kinds[n], n) for i in range(3)]),
                ClientSetup(study, 1, tmp_path / study.federation.moments / "sites" / n, CPU),
            )
            for n in names
        ]

    return make


def trained(sites, study, folder, wrap=lambda e: e):
    run = FederatedRun(study, "run", 1, folder / "rounds")
    return run_rounds(wrap(LocalEngine(sites, folder)), run)


@pytest.mark.slow
def test_one_site_trains_the_same_bits_whoever_keeps_its_moments(
    sites, tiny_study, tmp_path
) -> None:
    plain = dataclasses.replace(tiny_study, train=dataclasses.replace(tiny_study.train, rounds=3))
    together = shared(plain)
    own = trained(sites(plain, ("a",)), plain, tmp_path / "one")
    found = trained(sites(together, ("a",)), together, tmp_path / "two")
    assert same(found.weights, own.weights)
    assert own.moments is None
    for kind in KINDS:
        assert set(found.moments.by_kind[kind]) == set(own.weights)
    assert list((tmp_path / "own/sites/a").iterdir())
    assert not (tmp_path / "shared/sites").exists()  # nothing stays at the site


def cloned(tensors):
    return {k: v.clone() for k, v in tensors.items()}


def cloned_moments(moments):
    return OptimiserMoments(cloned(moments.exp_avg), cloned(moments.exp_avg_sq))


class Watched:
    """Records requests for training and the updates."""

    def __init__(self, engine) -> None:
        self.engine, self.requests, self.moments = engine, [], {}

    def send(self, path):
        request = load_request(path)
        trains = isinstance(request, TrainingRequest)
        if trains:
            self.requests.append((cloned(request.weights), cloned_moments(request.moments)))
        for reply in self.engine.send(path):
            if trains:
                update = load_update(reply.response)
                self.moments[request.round, reply.site] = cloned_moments(update.moments)
            yield SiteReply(reply.site, reply.response)


@pytest.mark.slow
def test_sites_start_each_round_from_the_mean_of_their_moments(sites, tiny_study, tmp_path) -> None:
    study = shared(tiny_study, server_lr=2.0)
    watched = []

    def wrap(engine):
        watched.append(Watched(engine))
        return watched[0]

    state = trained(sites(study), study, tmp_path / "run", wrap)
    (seen,) = watched
    (first_weights, _), (second_weights, second) = seen.requests
    name = "heads.idh.layers.1.weight"
    for kind in KINDS:
        one, two = (seen.moments[0, s].by_kind[kind][name] for s in ("a", "b"))
        assert not torch.equal(one, two)
        # the mean, and not twice as far as the mean, as of weights
        assert torch.allclose(second.by_kind[kind][name], (one + two) / 2, rtol=1e-5, atol=1e-12)
    # a head without labels has no moments, and keeps its weights
    untrained = "heads.mgmt.layers.1.weight"
    assert not second.exp_avg[untrained].any()
    assert torch.equal(second_weights[untrained], first_weights[untrained])
    assert min(float(t.min()) for t in state.moments.exp_avg_sq.values()) >= 0


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits_without_state_at_sites(
    sites, tiny_study, tmp_path
) -> None:
    study = shared(tiny_study)
    whole = trained(sites(study), study, tmp_path / "whole")
    engine = LocalEngine(sites(study), tmp_path / "parts")
    run = FederatedRun(study, "run", 1, tmp_path / "parts/rounds")
    run_rounds(engine, run, should_stop=lambda done: done == 1)
    again = trained(sites(study), study, tmp_path / "parts")
    assert same(again.weights, whole.weights)
    for kind in KINDS:
        assert same(again.moments.by_kind[kind], whole.moments.by_kind[kind])


@pytest.mark.slow
def test_only_weights_leave_a_run_as_its_model(sites, tiny_study, tmp_path) -> None:
    study = shared(tiny_study)
    state = trained(sites(study), study, tmp_path / "run")
    write_model(tmp_path / "model", recipe_of(study, "run", 2), state.weights, {}, lambda _: "")
    kept = gliofed.read_model(tmp_path / "model").weights
    assert same(kept, state.weights)
    assert set(kept) == set(build_net("small", None, 0).state_dict())


def moved(moments, shift):
    return OptimiserMoments(
        **{kind: {k: v + shift for k, v in own.items()} for kind, own in moments.by_kind.items()}
    )


def test_the_gate_asks_for_moments_and_squares_of_0_or_more(sent) -> None:
    zeros = zero_moments(MODEL)
    gate = UpdateGate(training_request(MODEL, zeros), LIMITS)
    good = update(MODEL, moments=moved(zeros, 0.1))
    checked = gate.check("a", sent(good))
    for kind in KINDS:
        assert same(checked.moments.by_kind[kind], good.moments.by_kind[kind])
    name = "mask.weight"
    squares = good.moments.exp_avg_sq

    def with_squares(changed):
        moments = OptimiserMoments(good.moments.exp_avg, changed)
        return sent(dataclasses.replace(good, moments=moments))

    with pytest.raises(UpdateError, match="exp_avg_sq has values below 0"):
        gate.check("a", with_squares({**squares, name: torch.full_like(MODEL[name], -1e-9)}))
    with pytest.raises(UpdateError, match="exp_avg_sq has NaN or infinite values"):
        gate.check("a", with_squares({**squares, name: torch.full_like(MODEL[name], torch.nan)}))
    with pytest.raises(UpdateError, match="lacks tensors of the model"):
        gate.check("a", with_squares({k: v for k, v in squares.items() if k != name}))
    with pytest.raises(UpdateError, match="lacks tensors of the model"):
        gate.check("a", sent(dataclasses.replace(good, moments=None)))
    with pytest.raises(UpdateError, match="tensors the model lacks"):
        UpdateGate(training_request(MODEL), LIMITS).check("a", sent(good))


def test_moments_do_not_enter_the_norm_of_a_change(sent) -> None:
    zeros = zero_moments(MODEL)
    gate = UpdateGate(training_request(MODEL, zeros), LIMITS)
    gate.check("a", sent(update(MODEL, moments=moved(zeros, 1e3))))
    with pytest.raises(UpdateError, match="above the bound"):
        gate.check("a", sent(update(MODEL, shift=10.0, moments=zeros)))


def test_moments_of_a_head_are_averaged_by_its_labels(sent) -> None:
    zeros = zero_moments(MODEL)
    merge = StreamingMean(MODEL, LABEL_AWARE)
    add(merge, sent, update(MODEL, "a", cases=10, idh=10, moments=moved(zeros, 1.0)))
    add(merge, sent, update(MODEL, "b", cases=30, idh=0, moments=moved(zeros, 3.0)))
    merged = merge.merged_moments(zeros).exp_avg
    assert float(merged["heads.idh.layers.1.weight"]) == pytest.approx(1.0)
    assert float(merged["mask.weight"]) == pytest.approx((10 * 1 + 30 * 3) / 40)


def test_a_hospital_is_told_that_moments_leave(tiny_study) -> None:
    told, other = (
        " ".join(what_leaves(s, SitePolicy(), None, 1000)) for s in (shared(tiny_study), tiny_study)
    )
    assert (
        "the optimiser's averages of gradients and of their squares (twice as many numbers)" in told
    )
    assert "gradients" not in other
