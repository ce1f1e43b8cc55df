"""Every strategy: the next model by hand, what the sites add, and runs that were stopped."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from test_fed import CPU, NONCE, Dies, make_sites, same, start

from gliofed.errors import CheckpointError, StudyError
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import save_update
from gliofed.federated.schedule import Schedule, make_schedule
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.strategies.halves import ClientRound, ServerSetup
from gliofed.federated.strategies.table import STRATEGIES, strategy_named
from gliofed.federation_config import FederationConfig
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.models.optimiser import learning_rate
from gliofed.types import Update

TRUNK, HEAD, UNSEEN = "up.0.weight", "heads.idh.layers.1.weight", "heads.mgmt.layers.1.weight"
MODEL = {
    TRUNK: torch.tensor([[3.0, -1.0]]),
    "mask.weight": torch.tensor([[4.0]]),
    HEAD: torch.tensor([[0.5]]),
    UNSEEN: torch.tensor([[0.25]]),
}
MEANS = ("label_aware", "fedavg", "fedprox", "scaffold")
"""Strategies whose next model is the mean of the sites' models."""
LOCAL = tuple(k for k, s in STRATEGIES.items() if s.takes_steps)


def counts(cases, masks=0, **labelled) -> LabelCounts:
    """labelled: marker to cases of its first class."""
    classes = {m.id: (labelled.get(m.id, 0), *[0] * (len(m.classes) - 1)) for m in MARKERS}
    return LabelCounts(cases, masks, classes)


class Server:
    """The server's half of a strategy and a folder of updates. sites: all that were counted."""

    def __init__(self, study, method, folder, sites=("a", "b"), state=None, **federation) -> None:
        rules = FederationConfig(method=method, **federation)
        self.study = dataclasses.replace(study, federation=rules)
        self.row = STRATEGIES[method]
        everyone = sites if isinstance(sites, dict) else {s: counts(10, 10, idh=10) for s in sites}
        setup = ServerSetup(
            study=self.study,
            schedule=Schedule(2, 10, 1),
            weights=MODEL,
            state=self.row.initial(MODEL) if state is None else state,
            counts=everyone,
        )
        self.half = self.row.server(setup)
        self.folder, self.numbers = folder, itertools.count()

    def add(self, tensors, site="a", cases=10, idh=10, extra=None) -> None:
        labelled = {MASK_TASK: cases, **dict.fromkeys((m.id for m in MARKERS), 0), "idh": idh}
        tensors = {k: t.clone() for k, t in tensors.items()}
        one = Update("run", 0, NONCE, site, tensors, cases, labelled, {}, extra or {})
        path = self.folder / f"update-{next(self.numbers)}"
        save_update(path, one)
        self.half.add(one, path)

    def value(self, name):
        return self.half.weights[name].flatten().tolist()


def moved(by, model=MODEL):
    return {k: t + by for k, t in model.items()}


def zeros():
    return {k: torch.zeros_like(t) for k, t in MODEL.items()}


def no_change():
    return {"control": zeros()}


# ---- every row


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=lambda s: s.id)
def test_every_strategy_has_a_source_and_is_found_by_its_id(strategy) -> None:
    assert strategy.source
    assert strategy_named(strategy.id) is strategy
    assert set(strategy.extra) <= set(strategy.initial(MODEL))


def test_a_method_that_is_no_row_is_named() -> None:
    with pytest.raises(StudyError, match=r"federation.method: 'fedsgd' is none of .*'fedavg'"):
        strategy_named("fedsgd")


def expected_of_one_site(method, study):
    """The trunk after a round of one site: its weights are 0.5 more, or its gradient is 0.5."""
    if method == "synchronous":  # the first step of AdamW has the length of the learning rate
        lr = learning_rate(study.train, 0, 10)
        return [v * (1 - lr * study.train.weight_decay) - lr for v in (3.0, -1.0)]
    if method == "fedadam":  # 0.1 x 0.5 / (sqrt(0.99 x 0.001^2 + 0.01 x 0.25) + 0.001)
        return [v + 0.05 / (math.sqrt(0.00250099) + 0.001) for v in (3.0, -1.0)]
    return [3.5, -0.5]


@pytest.mark.parametrize("method", STRATEGIES)
def test_one_site_gives_the_expected_next_model(method, tiny_study, tmp_path) -> None:
    server = Server(tiny_study, method, tmp_path, sites=("a",))
    takes_steps = server.row.takes_steps
    sent = moved(0.5) if takes_steps else {k: torch.full_like(t, 0.5) for k, t in MODEL.items()}
    sent[UNSEEN] = MODEL[UNSEEN] if takes_steps else torch.zeros(1, 1)
    server.add(sent, extra=no_change() if server.row.extra else None)
    server.half.step(0, ["a"])
    assert server.value(TRUNK) == pytest.approx(expected_of_one_site(method, tiny_study), rel=1e-6)
    assert torch.equal(server.half.weights[UNSEEN], MODEL[UNSEEN])  # a head without labels
    assert {k: t.dtype for k, t in server.half.weights.items()} == dict.fromkeys(
        MODEL, torch.float32
    )
    assert set(server.half.request_state) <= set(server.half.state)
    if takes_steps:
        assert set(server.half.state) == set(server.row.initial(MODEL))


@pytest.mark.parametrize("method", MEANS)
def test_the_mean_of_one_site_has_its_bits(method, tiny_study, tmp_path) -> None:
    server = Server(tiny_study, method, tmp_path)
    generator = torch.Generator().manual_seed(1)
    own = {k: torch.randn(t.shape, generator=generator) for k, t in MODEL.items()}
    own[UNSEEN] = MODEL[UNSEEN]
    server.add(own, extra=no_change() if server.row.extra else None)
    server.half.step(0, ["a"])
    assert all(torch.equal(server.half.weights[k], own[k]) for k in MODEL)


# ---- the servers' halves by hand


@pytest.mark.parametrize("method", LOCAL)
def test_sites_weigh_by_cases_or_by_labels(method, tiny_study, tmp_path) -> None:
    """10 cases with 5 labels move by 0.2, 30 cases without one by 0.6, 40 with 15 by -0.4."""
    server = Server(tiny_study, method, tmp_path)
    for site, cases, idh, by in (("a", 10, 5, 0.2), ("b", 30, 0, 0.6), ("c", 40, 15, -0.4)):
        extra = no_change() if server.row.extra else None
        server.add(moved(by), site, cases, idh, extra)
    server.half.step(0, ["a", "b", "c"])
    by_cases = (10 * 0.2 + 30 * 0.6 - 40 * 0.4) / 80
    by_labels = (5 * 0.2 - 15 * 0.4) / 20
    head = by_cases if method == "fedavg" else by_labels
    if method == "fedadam":
        by_cases, head = (
            0.1 * c / (math.sqrt(0.99 * 0.001**2 + 0.01 * c**2) + 0.001) for c in (by_cases, head)
        )
    assert server.value(TRUNK) == pytest.approx([3 + by_cases, -1 + by_cases], abs=1e-6)
    assert server.value(HEAD) == pytest.approx([0.5 + head], abs=1e-6)


@pytest.mark.parametrize("server_lr", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("method", MEANS)
def test_a_mean_goes_server_lr_times_as_far(method, server_lr, tiny_study, tmp_path) -> None:
    server = Server(tiny_study, method, tmp_path, server_lr=server_lr)
    for site, by in (("a", 0.1), ("b", 0.3)):
        server.add(moved(by), site, extra=no_change() if server.row.extra else None)
    server.half.step(0, ["a", "b"])
    assert server.value(TRUNK) == pytest.approx([3 + 0.2 * server_lr, -1 + 0.2 * server_lr])


CHANGES = (np.array([0.4, -0.2]), np.array([-0.1, 0.3]))
"""Of the trunk in two rounds."""


def two_rounds(server):
    """The trunk and the server's state after each round of `CHANGES`."""
    for number, change in enumerate(CHANGES):
        by = torch.tensor(change, dtype=torch.float32)
        sent = {**server.half.weights, TRUNK: server.half.weights[TRUNK] + by}
        server.add(sent, idh=0)
        server.half.step(number, ["a"])
        yield server.value(TRUNK), {k: t[TRUNK].flatten() for k, t in server.half.state.items()}


def test_fedavgm_has_momentum_of_nine_tenths(tiny_study, tmp_path) -> None:
    """Hsu et al. 2019: v = 0.9 v + change, w = w + lr v."""
    server = Server(tiny_study, "fedavgm", tmp_path, server_lr=0.5)
    (one, _), (two, state) = two_rounds(server)
    assert one == pytest.approx([3.2, -1.1])
    momentum = [0.9 * 0.4 - 0.1, 0.9 * -0.2 + 0.3]  # 0.26, 0.12
    assert state["momentum"].tolist() == pytest.approx(momentum)
    assert two == pytest.approx([3.33, -1.04])
    untrained = server.half.state["momentum"]
    assert not untrained[HEAD].any()
    assert torch.equal(server.half.weights[HEAD], MODEL[HEAD])


def test_fedadam_is_algorithm_2_of_the_paper(tiny_study, tmp_path) -> None:
    """Reddi et al. 2021: m = 0.9 m + 0.1 d, v = 0.99 v + 0.01 d^2, w = w + lr m / (sqrt(v) + tau)."""
    server = Server(tiny_study, "fedadam", tmp_path, server_lr=0.01)
    first, second, weights = np.zeros(2), np.full(2, 0.001**2), np.array([3.0, -1.0])
    for change, (found, state) in zip(CHANGES, two_rounds(server), strict=True):
        first = 0.9 * first + 0.1 * change
        second = 0.99 * second + 0.01 * change**2
        weights = weights + 0.01 * first / (np.sqrt(second) + 0.001)
        assert found == pytest.approx(weights, rel=1e-6)
        assert state["exp_avg"].tolist() == pytest.approx(first, rel=1e-5)
        assert state["exp_avg_sq"].tolist() == pytest.approx(second, rel=1e-5)


def test_scaffolds_control_moves_by_the_mean_over_all_sites(tiny_study, tmp_path) -> None:
    """Karimireddy et al. 2020, algorithm 1: c = c + sum of changes / N, here of N = 4 sites."""
    before = {"control": {**zeros(), TRUNK: torch.tensor([[1.0, 2.0]])}}
    server = Server(tiny_study, "scaffold", tmp_path, sites=("a", "b", "c", "d"), state=before)
    assert server.half.request_state["control"][TRUNK].tolist() == [[1.0, 2.0]]
    for site, change in (("a", [[0.4, -0.8]]), ("b", [[0.8, 0.0]])):
        control = {**zeros(), TRUNK: torch.tensor(change)}
        server.add(moved(0.1), site, extra={"control": control})
    server.half.step(0, ["a", "b"])
    assert server.half.state["control"][TRUNK].tolist()[0] == pytest.approx([1.3, 1.8])
    assert server.value(TRUNK) == pytest.approx([3.1, -0.9])
    server.add(moved(0.1), "a", extra={"control": {**zeros(), TRUNK: torch.tensor([[4.0, 4.0]])}})
    server.half.step(1, ["a"])  # changes of the round before are not added again
    assert server.half.state["control"][TRUNK].tolist()[0] == pytest.approx([2.3, 2.8])


def gradient(trunk=(0.0, 0.0), mask=0.0, idh=0.0):
    return {
        TRUNK: torch.tensor([trunk], dtype=torch.float32),
        "mask.weight": torch.tensor([[mask]]),
        HEAD: torch.tensor([[idh]]),
        UNSEEN: torch.zeros(1, 1),
    }


def with_training(study, **changes):
    return dataclasses.replace(study, train=dataclasses.replace(study.train, **changes))


@pytest.mark.parametrize("clip", [2.5, 10.0])
def test_synchronous_adds_clips_and_steps(clip, tiny_study, tmp_path) -> None:
    """Two rounds of AdamW; the sums have norm 5 and 10."""
    study = with_training(tiny_study, clip=clip, weight_decay=0.1, lr=0.1)
    server = Server(study, "synchronous", tmp_path)
    weights = np.array([3.0, -1.0, 4.0, 0.5])
    first, second = np.zeros(4), np.zeros(4)
    rounds = (  # norm and sum; the gradient of site a; the values that take a step
        (5.0, [3.0, 0.0, 4.0, 0.0], (1.0, 2.0), 4.0, [True, True, True, False]),
        (10.0, [0.0, 6.0, 0.0, 8.0], (5.0, -1.0), -3.0, [True, True, False, True]),
    )
    steps = np.zeros(4)
    for number, (norm, total, trunk, mask, trained) in enumerate(rounds):
        server.add(gradient(trunk, mask, total[3] + 1), "a")
        rest = [total[0] - trunk[0], total[1] - trunk[1]]
        server.add(gradient(rest, total[2] - mask, -1.0), "b")
        assert server.half.step(number, ["a", "b"]) == pytest.approx(norm)
        clipped = np.array(total) * min(1, clip / norm)
        steps = steps + trained
        first = np.where(trained, 0.9 * first + 0.1 * clipped, first)
        second = np.where(trained, 0.999 * second + 0.001 * clipped**2, second)
        count = np.maximum(steps, 1)
        lr = learning_rate(study.train, number, 10)
        step = first / (1 - 0.9**count) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
        weights = np.where(trained, weights * (1 - lr * 0.1) - lr * step, weights)
        found = [*server.value(TRUNK), *server.value("mask.weight"), *server.value(HEAD)]
        np.testing.assert_allclose(found, weights, rtol=1e-5)
        assert torch.equal(server.half.weights[UNSEEN], MODEL[UNSEEN])
        assert set(server.half.state["step"]) == {TRUNK, "mask.weight", *([HEAD] if number else [])}


def test_a_missing_site_is_made_up_for_by_counts(tiny_study, tmp_path) -> None:
    everyone = {
        "a": counts(10, 10, idh=4),
        "b": counts(30, 0, idh=6),
        "c": counts(20, 10, idh=5, mgmt=3),
    }
    study = with_training(tiny_study, clip=1e3)
    sent = gradient((2.0, -4.0), 1.0, 8.0)
    for there, trunk, mask, head in (
        (("a", "b", "c"), 1.0, 1.0, 1.0),
        (("a", "b"), 60 / 40, 20 / 10, 15 / 10),
        (("a",), 60 / 10, 20 / 10, 15 / 4),
        (("b",), 60 / 30, 1.0, 15 / 6),  # b has no mask to scale up
    ):
        server = Server(study, "synchronous", tmp_path, everyone)
        server.add({**sent, "mask.weight": sent["mask.weight"] * (there[0] != "b")}, there[0])
        norm = server.half.step(0, there)
        wanted = [2 * trunk, -4 * trunk, mask * (there[0] != "b"), 8 * head]
        assert norm == pytest.approx(np.linalg.norm(wanted))
        moments = server.half.state["exp_avg"]
        assert moments[TRUNK].flatten().tolist() == pytest.approx([0.1 * w for w in wanted[:2]])
        assert moments[HEAD].item() == pytest.approx(0.1 * wanted[3])
        if wanted[2]:
            assert moments["mask.weight"].item() == pytest.approx(0.1 * wanted[2])
        else:
            assert torch.equal(server.half.weights["mask.weight"], MODEL["mask.weight"])
        assert torch.equal(server.half.weights[UNSEEN], MODEL[UNSEEN])  # only c trains it


def test_a_site_that_was_not_counted_is_not_scaled_by(tiny_study, tmp_path) -> None:
    server = Server(with_training(tiny_study, clip=1e3), "synchronous", tmp_path)
    server.add(gradient((1.0, 1.0)), "late")
    server.half.step(0, ["a", "b", "late"])
    assert server.half.state["exp_avg"][TRUNK].flatten().tolist() == pytest.approx([0.1, 0.1])


def test_without_a_case_in_the_batch_there_is_no_step(tiny_study, tmp_path) -> None:
    server = Server(tiny_study, "synchronous", tmp_path)
    server.add(gradient((1.0, 1.0)))
    server.half.step(0, ["a", "b"])
    before, state = dict(server.half.weights), server.half.state
    server.half.add(Update("run", 1, NONCE, "a", {}, 0, {}, {}), tmp_path / "none")
    assert server.half.step(1, ["a", "b"]) is None
    assert all(torch.equal(server.half.weights[k], before[k]) for k in MODEL)
    assert float(server.half.state["step"][TRUNK]) == float(state["step"][TRUNK]) == 1


# ---- the sites' halves by hand


def site_half(method, server_state=None, site_state=None, **federation):
    """Of a site whose trunk has moved by 0.2 in local steps; its gradients are 1 and none."""
    parameters = {k: (t + 0.2).clone().requires_grad_() for k, t in MODEL.items()}
    parameters[TRUNK].grad = torch.tensor([[1.0, -2.0]])
    parameters[HEAD].grad = torch.tensor([[1.0]])
    config = FederationConfig(method=method, **federation)
    work = ClientRound(config, parameters, MODEL, server_state or {}, site_state or {})
    return STRATEGIES[method].client(work), parameters


@pytest.mark.parametrize("method", [m for m in LOCAL if m not in ("fedprox", "scaffold")])
def test_plain_local_steps_add_nothing_and_send_the_weights(method) -> None:
    half, parameters = site_half(method)
    half.correct()
    assert parameters[TRUNK].grad.tolist() == [[1.0, -2.0]]
    assert parameters[UNSEEN].grad is None
    sent = half.tensors()
    assert all(torch.equal(sent[k], parameters[k]) for k in MODEL)
    assert not any(t.requires_grad for t in sent.values())
    assert (half.extra(), half.state()) == ({}, {})


@pytest.mark.parametrize(("proximal", "pull"), [(0.0, 0.0), (0.5, 0.1), (2.0, 0.4)])
def test_fedprox_pulls_towards_the_rounds_model(proximal, pull) -> None:
    half, parameters = site_half("fedprox", proximal=proximal)
    half.correct()
    assert parameters[TRUNK].grad.flatten().tolist() == pytest.approx([1 + pull, -2 + pull])
    assert parameters[HEAD].grad.item() == pytest.approx(1 + pull)
    assert parameters[UNSEEN].grad is None  # it takes no step
    half.correct()  # of the present distance, once a step
    assert parameters[HEAD].grad.item() == pytest.approx(1 + 2 * pull)
    assert half.tensors()[TRUNK].flatten().tolist() == pytest.approx([3.2, -0.8])


def controls(trunk, head=0.0):
    return {"control": {**zeros(), TRUNK: torch.tensor([trunk]), HEAD: torch.tensor([[head]])}}


def test_scaffold_corrects_by_the_controls_and_sends_the_change_of_its_own() -> None:
    """Gradient - own + all sites'; the new own is the mean of the uncorrected gradients."""
    half, parameters = site_half("scaffold", controls([0.3, 0.1], 0.5), controls([0.2, -0.4]))
    half.correct()
    assert parameters[TRUNK].grad.flatten().tolist() == pytest.approx([1.1, -1.5])
    assert parameters[HEAD].grad.item() == pytest.approx(1.5)
    parameters[TRUNK].grad = torch.tensor([[2.0, 0.0]])
    parameters[HEAD].grad = None  # a batch without labels
    half.correct()
    assert parameters[TRUNK].grad.flatten().tolist() == pytest.approx([2.1, 0.5])
    assert parameters[HEAD].grad is None
    own = half.state()["control"]
    assert own[TRUNK].flatten().tolist() == pytest.approx([1.5, -1.0])
    assert own[HEAD].item() == pytest.approx(0.5)
    change = half.extra()["control"]
    assert change[TRUNK].flatten().tolist() == pytest.approx([1.3, -0.6])
    assert set(own) == set(change) == set(MODEL)
    assert not change[UNSEEN].any()


def test_scaffold_starts_without_a_control_and_without_a_step_keeps_it() -> None:
    half, parameters = site_half("scaffold", controls([0.3, 0.1]))
    half.correct()
    assert parameters[TRUNK].grad.flatten().tolist() == pytest.approx([1.3, -1.9])
    assert half.extra()["control"][TRUNK].flatten().tolist() == [1.0, -2.0]
    before = controls([0.2, -0.4])
    idle, _ = site_half("scaffold", controls([0.3, 0.1]), before)
    assert not any(t.any() for t in idle.extra()["control"].values())
    assert torch.equal(idle.state()["control"][TRUNK], before["control"][TRUNK])


def test_a_gradient_that_is_not_finite_does_not_enter_scaffolds_control() -> None:
    half, parameters = site_half("scaffold", controls([0.0, 0.0]))
    half.correct()
    parameters[HEAD].grad = torch.tensor([[torch.nan]])
    half.correct()
    assert half.state()["control"][TRUNK].flatten().tolist() == [1.0, -2.0]
    assert half.state()["control"][HEAD].item() == 1.0


def test_synchronous_sends_the_gradient_with_zeros_for_tasks_without_labels() -> None:
    half, _ = site_half("synchronous")
    sent = half.tensors()
    assert sent[TRUNK].tolist() == [[1.0, -2.0]]
    assert sent[HEAD].tolist() == [[1.0]]
    assert set(sent) == set(MODEL)
    assert not sent[UNSEEN].any()
    assert (half.extra(), half.state()) == ({}, {})


# ---- schedules


@pytest.mark.parametrize(
    ("method", "settings", "wanted"),
    [
        ("synchronous", {}, Schedule(5, 15, 20)),
        ("synchronous", {"commit": 3}, Schedule(5, 15, 3)),
        ("fedavg", {}, Schedule(5, 3, 1)),
        ("fedavg", {"local_epochs": 2}, Schedule(5, 2, 1)),
        ("fedavg", {"local_steps": 4}, Schedule(5, 4, 1)),  # 15 steps in all
        ("fedavg", {"local_steps": 5, "local_epochs": 3}, Schedule(5, 3, 1)),
    ],
)
def test_rounds_follow_from_epochs_and_cases(tiny_study, method, settings, wanted) -> None:
    rules = FederationConfig(method=method, **settings)
    train = dataclasses.replace(tiny_study.train, epochs=3, batch=8)
    study = dataclasses.replace(tiny_study, train=train, federation=rules)
    assert make_schedule(study, 40) == make_schedule(study, 33) == wanted
    assert make_schedule(study, 41).batches == 6


def test_a_run_has_at_most_as_many_rounds_as_its_files_can_be_named(tiny_study) -> None:
    train = dataclasses.replace(tiny_study.train, epochs=99_999, batch=8)
    study = dataclasses.replace(tiny_study, train=train)
    assert make_schedule(study, 8).rounds == 99_999
    with pytest.raises(StudyError, match="199998 rounds, at most 99999"):
        make_schedule(study, 9)


def test_commits_are_every_so_many_rounds_and_after_each_pass_and_the_last() -> None:
    found = [r for r in range(1, 15) if Schedule(5, 14, 3).commits_after(r)]
    assert found == [3, 5, 6, 9, 10, 12, 14]


# ---- whole runs


def with_method(study, method, epochs, **changes):
    rules = FederationConfig(method=method, **{"server_lr": 0.01, "commit": 2, **changes})
    rules = rules if method == "fedadam" else dataclasses.replace(rules, server_lr=1.0)
    return dataclasses.replace(with_training(study, epochs=epochs), federation=rules)


def equal(one, other) -> bool:
    kinds = set(one.state) == set(other.state)
    return (
        kinds
        and same(one, other)
        and all(
            set(tensors) == set(other.state[kind])
            and all(torch.equal(t, other.state[kind][name]) for name, t in tensors.items())
            for kind, tensors in one.state.items()
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", STRATEGIES)
def test_a_stopped_and_a_killed_run_end_with_the_same_bits(
    method, make_prepared, tiny_study, tmp_path
) -> None:
    study = with_method(tiny_study, method, epochs=2)
    whole = start(make_prepared, study, tmp_path / "whole")
    assert whole.complete
    assert not any(p.refused for p in whole.history)
    stopped = tmp_path / "stopped"
    engine = LocalEngine(make_sites(make_prepared, study, stopped), stopped)
    run = FederatedRun(study, "run", 1, stopped / "rounds")
    assert run_rounds(engine, run, should_stop=lambda done: done == 1).rounds == 1
    assert equal(start(make_prepared, study, stopped), whole)
    for at in (3, 5):  # the second site's turn of the first round, and of the second
        cut = tmp_path / f"cut-{at}"
        with pytest.raises(KeyboardInterrupt):
            start(make_prepared, study, cut, wrap=lambda e, at=at: Dies(e, at))
        assert equal(start(make_prepared, study, cut), whole), at


def lose_state(make_prepared, study, folder):
    """A run that is killed in its second round, whose site "a" then loses what it has kept."""
    with pytest.raises(KeyboardInterrupt):
        start(make_prepared, study, folder, wrap=lambda e: Dies(e, 4))
    for path in (folder / "a").glob("*"):
        path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("method", LOCAL)
def test_a_site_that_lost_its_state_stops_the_run_or_rejoins_without_it(
    method, make_prepared, tiny_study, tmp_path
) -> None:
    study = with_method(tiny_study, method, epochs=2)
    lose_state(make_prepared, study, tmp_path)
    with pytest.raises(CheckpointError, match=r"site a: .* the optimiser state that round 1"):
        start(make_prepared, study, tmp_path)
    own = [make_prepared(f"c{i}", {"idh": "mutant"}, "a") for i in range(3)]
    setup = ClientSetup(study, 5, tmp_path / "a", CPU, rejoins=True)
    engine = LocalEngine([Client(SiteData("a", own), setup)], tmp_path)
    end = run_rounds(engine, FederatedRun(study, "run", 1, tmp_path / "rounds"))
    assert end.complete
    assert not any(p.refused for p in end.history)


@pytest.mark.slow
@pytest.mark.parametrize("compress", ["none", "int8"])
def test_a_synchronous_site_has_no_state_to_lose_but_a_rounding_error(
    compress, make_prepared, tiny_study, tmp_path
) -> None:
    study = with_method(tiny_study, "synchronous", epochs=1, compress=compress, commit=1)
    whole = start(make_prepared, study, tmp_path / "whole")
    lose_state(make_prepared, study, tmp_path / "lost")
    end = start(make_prepared, study, tmp_path / "lost")
    assert end.complete
    assert equal(end, whole) == (compress == "none")


@pytest.mark.slow
def test_the_optimisers_moments_stay_at_the_site(make_prepared, tiny_study, tmp_path) -> None:
    study = with_method(tiny_study, "label_aware", epochs=3)
    end = start(make_prepared, study, tmp_path)
    assert end.state == {}
    for site in ("a", "b"):  # of the last two rounds, since one may be repeated
        names = sorted(p.name for p in (tmp_path / site).iterdir())
        assert names == ["after-00001.safetensors", "after-00002.safetensors"]


@pytest.mark.slow
def test_a_batch_without_labels_moves_nothing(make_prepared, tiny_study, tmp_path) -> None:
    """As with pooled training, which takes no step then."""
    study = with_method(tiny_study, "synchronous", epochs=1)
    known = [make_prepared(f"c{i}", {"idh": "mutant"}, "a") for i in range(2)]
    unknown = [make_prepared(f"d{i}", {}, "b", mask=False) for i in range(2)]

    def end_of(cases, site, folder):
        setup = ClientSetup(study, 5, folder / site, CPU)
        engine = LocalEngine([Client(SiteData(site, cases), setup)], folder)
        return run_rounds(engine, FederatedRun(study, "run", 1, folder / "rounds"))

    end = end_of(unknown, "b", tmp_path / "b")
    assert end.rounds == 1
    assert not any(end.state.get(kind) for kind in end.state)
    assert end_of(known, "a", tmp_path / "a").state["step"]
