"""Moments that travel with the model: the same training, nothing kept at a site, and a gate."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from test_fed import CPU, LIMITS, add, task, update

from gliofed.errors import UpdateError
from gliofed.federated.aggregation.merge import StreamingMean
from gliofed.federated.aggregation.moments import KINDS, moments_of, weights_of, with_moments
from gliofed.federated.aggregation.strategies import LABEL_AWARE
from gliofed.federated.client import Client
from gliofed.federated.gate import UpdateGate
from gliofed.federated.governance.consent import what_leaves
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import load_task, load_update, save_update
from gliofed.federated.server.rounds import SiteReply, run_rounds
from gliofed.models.folder import read_model, recipe_of, write_model


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
            Client(n, [make_prepared(f"{n}{i}", kinds[n], n) for i in range(3)], study, 1,
                 tmp_path / study.federation.moments / "sites" / n, CPU)
            for n in names
        ]  # fmt: skip

    return make


def trained(sites, study, folder, wrap=lambda e: e):
    return run_rounds(wrap(LocalEngine(sites, folder)), study, 1, "run", folder / "rounds")


@pytest.mark.slow
def test_one_site_trains_the_same_bits_whoever_keeps_its_moments(
    sites, tiny_study, tmp_path
) -> None:
    plain = dataclasses.replace(tiny_study, train=dataclasses.replace(tiny_study.train, rounds=3))
    together = shared(plain)
    own = trained(sites(plain, ("a",)), plain, tmp_path / "one")
    found = trained(sites(together, ("a",)), together, tmp_path / "two")
    assert same(found.model, own.weights)
    assert set(moments_of(found.weights)) == {f"{n}:{k}" for n in own.weights for k in KINDS}
    assert list((tmp_path / "own/sites/a").iterdir())
    assert not (tmp_path / "shared/sites").exists()  # nothing stays at the site


class Watched:
    """Notes what is asked and answered."""

    def __init__(self, engine) -> None:
        self.engine, self.asked, self.answers = engine, [], {}

    def ask(self, path):
        asked = load_task(path)
        self.asked.append({k: v.clone() for k, v in asked.weights.items()})
        for reply in self.engine.ask(path):
            if asked.kind == "train":
                self.answers[asked.round, reply.site] = {
                    k: v.clone() for k, v in load_update(reply.answer).weights.items()
                }
            yield SiteReply(reply.site, reply.answer)


@pytest.mark.slow
def test_sites_start_each_round_from_the_mean_of_their_moments(sites, tiny_study, tmp_path) -> None:
    study = shared(tiny_study, server_lr=2.0)
    watched = []

    def wrap(engine):
        watched.append(Watched(engine))
        return watched[0]

    state = trained(sites(study), study, tmp_path / "run", wrap)
    (seen,) = watched
    second = seen.asked[2]  # after the count and the first round
    name = "heads.idh.layers.1.weight"
    for kind in KINDS:
        one, two = (seen.answers[0, s][f"{name}:{kind}"] for s in ("a", "b"))
        assert not torch.equal(one, two)
        # the mean, and not twice as far as the mean, as of weights
        assert torch.allclose(second[f"{name}:{kind}"], (one + two) / 2, rtol=1e-5, atol=1e-12)
    # what no site knows has no moments, and stays
    assert not second["heads.mgmt.layers.1.weight:exp_avg"].any()
    assert torch.equal(second["heads.mgmt.layers.1.weight"],
                       seen.asked[1]["heads.mgmt.layers.1.weight"])  # fmt: skip
    assert min(float(t.min()) for n, t in state.weights.items() if n.endswith("_sq")) >= 0


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits_without_state_at_sites(
    sites, tiny_study, tmp_path
) -> None:
    study = shared(tiny_study)
    whole = trained(sites(study), study, tmp_path / "whole")
    engine = LocalEngine(sites(study), tmp_path / "parts")
    run_rounds(engine, study, 1, "run", tmp_path / "parts/rounds", enough=lambda done: done == 1)
    again = trained(sites(study), study, tmp_path / "parts")
    assert same(again.weights, whole.weights)


@pytest.mark.slow
def test_only_weights_leave_a_run_as_its_model(sites, tiny_study, tmp_path) -> None:
    study = shared(tiny_study)
    state = trained(sites(study), study, tmp_path / "run")
    write_model(tmp_path / "model", recipe_of(study, "run", 2), state.model, {}, lambda _: "")
    kept = read_model(tmp_path / "model").weights
    assert same(kept, weights_of(state.weights))
    assert not moments_of(kept)


def test_the_gate_asks_for_moments_and_squares_of_0_or_more(sent) -> None:
    whole = with_moments(MODEL)
    gate = UpdateGate(task(whole), LIMITS)
    good = update(whole)
    gate.check("a", sent(good))
    name = "mask.weight:exp_avg_sq"
    below = {**good.weights, name: torch.full_like(whole[name], -1e-9)}
    with pytest.raises(UpdateError, match="exp_avg_sq has values below 0"):
        gate.check("a", sent(dataclasses.replace(good, weights=below)))
    without = {k: v for k, v in good.weights.items() if k != name}
    with pytest.raises(UpdateError, match="lacks tensors of the model"):
        gate.check("a", sent(dataclasses.replace(good, weights=without)))
    with pytest.raises(UpdateError, match="tensors the model lacks"):
        UpdateGate(task(MODEL), LIMITS).check("a", sent(good))


def test_moments_do_not_enter_the_norm_of_a_change(sent) -> None:
    whole = with_moments(MODEL)
    large = {k: v + (1e3 if ":" in k else 0.1) for k, v in whole.items()}
    UpdateGate(task(whole), LIMITS).check("a", sent(update(whole, shift=0, weights=large)))
    far = {k: v + (0 if ":" in k else 10.0) for k, v in whole.items()}
    with pytest.raises(UpdateError, match="above the bound"):
        UpdateGate(task(whole), LIMITS).check("a", sent(update(whole, shift=0, weights=far)))


def test_moments_of_a_head_are_averaged_by_its_labels(sent) -> None:
    whole = with_moments(MODEL)
    merge = StreamingMean(whole, LABEL_AWARE)
    add(merge, sent, update(whole, "a", cases=10, idh=10, shift=1.0))
    add(merge, sent, update(whole, "b", cases=30, idh=0, shift=3.0))
    found = merge.result()
    assert float(found["heads.idh.layers.1.weight:exp_avg"]) == pytest.approx(1.0)
    assert float(found["mask.weight:exp_avg"]) == pytest.approx((10 * 1 + 30 * 3) / 40)


def test_a_hospital_is_told_that_moments_leave(tiny_study) -> None:
    told, other = (
        " ".join(what_leaves(s, SitePolicy(), None, 1000)) for s in (shared(tiny_study), tiny_study)
    )
    assert "twice as many numbers on the mean size of this site's gradients" in told
    assert "gradients" not in other
