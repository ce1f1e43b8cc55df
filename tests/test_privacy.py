"""The parts of [privacy]: accounting, clipping, noise, draws, and a hospital's ledger."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import binom, norm

from gliofed.errors import PolicyError, StudyError
from gliofed.federated.governance.policy import SitePolicy, enforce_private
from gliofed.federated.noise.accounting import (
    PRECISION,
    Mechanism,
    epsilon_of,
    mechanism_of,
    noise_for,
)
from gliofed.federated.noise.clipping import clipped_sum
from gliofed.federated.noise.ledger import Budget, Ledger, RunCost
from gliofed.federated.noise.random_numbers import drawn, gaussian
from gliofed.privacy_config import PrivacyConfig
from gliofed.study import parse_study, study_toml
from gliofed.types import Labels

PRIVACY = PrivacyConfig(clip=1.0, patients=100, delta=1e-5, noise=2.0)


def seeded(name: str):
    """Bytes that are the same in each run of a test."""
    drawn_so_far = [0]

    def entropy(count: int) -> bytes:
        drawn_so_far[0] += 1
        return hashlib.shake_256(f"{name}/{drawn_so_far[0]}".encode()).digest(count)

    return entropy


def gaussian_delta(epsilon: float, noise: float) -> float:
    """Balle and Wang 2018, ICML, theorem 8: of one round without sampling."""
    return norm.cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * norm.cdf(
        -0.5 / noise - epsilon * noise
    )


@pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (4.0, 1e-3), (0.5, 1e-6)])
def test_one_round_without_sampling_is_the_closed_form(noise, delta) -> None:
    exact = brentq(lambda e: gaussian_delta(e, noise) - delta, 0, 100)
    assert epsilon_of([Mechanism(1.0, noise, 1)], delta) == pytest.approx(exact, abs=1e-3)
    # n rounds without sampling are one with noise / sqrt(n)
    many = epsilon_of([Mechanism(1.0, noise * 3, 9)], delta)
    assert many == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize(
    ("mechanisms", "delta", "opacus"),
    [  # upper bounds of Opacus 1.6.0, PRVAccountant, eps_error 1e-3 (Gopi et al. 2021, NeurIPS)
        ([(0.1, 2.0, 1000)], 1e-5, 8.28070),
        ([(0.25, 4.0, 160)], 1e-3, 2.43455),
        ([(0.01, 10.0, 5000)], 1e-6, 0.27654),
        ([(0.1, 2.0, 1000), (0.25, 4.0, 160)], 1e-5, 9.32992),
    ],
)
def test_epsilon_is_that_of_two_libraries(mechanisms, delta, opacus) -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    ours = epsilon_of([Mechanism(*m) for m in mechanisms], delta)
    accountant = PLDAccountant()
    for rate, noise, rounds in mechanisms:
        event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
        accountant.compose(SelfComposedDpEvent(event, rounds))
    assert ours == pytest.approx(accountant.get_epsilon(delta), abs=1e-3)
    assert opacus - 2.5e-3 < ours <= opacus  # both are upper bounds; ours is the tighter one


def test_no_round_costs_nothing() -> None:
    assert epsilon_of([], 1e-5) == epsilon_of([Mechanism(0.1, 1.0, 0)], 1e-5) == 0


@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_the_noise_is_the_least_that_suffices(epsilon) -> None:
    noise = noise_for(epsilon, 1e-5, 0.1, 50)
    assert epsilon_of([Mechanism(0.1, noise, 50)], 1e-5) <= epsilon
    less = noise / (1 + PRECISION) ** 1.01
    assert epsilon_of([Mechanism(0.1, less, 50)], 1e-5) > epsilon


def test_an_epsilon_beyond_all_noise_is_refused() -> None:
    with pytest.raises(StudyError, match="fewer epochs"):
        noise_for(1e-6, 1e-12, 1.0, 1000)


def test_rounds_and_rate_of_a_study(tiny_study) -> None:
    train = dataclasses.replace(tiny_study.train, epochs=3, batch=30)
    study = dataclasses.replace(tiny_study, train=train, privacy=PRIVACY)
    assert mechanism_of(study) == Mechanism(0.3, 2.0, 12)  # 100 patients in batches of 30


# clipping ----------------------------------------------------------------------------------------


def summed(gradients, clip):
    """Of records whose gradient is theirs by itself: a loss of parameter times record."""
    parameters = {
        "a": torch.zeros(2, requires_grad=True),
        "b": torch.zeros(1, requires_grad=True),
    }

    def add(record):
        joined = torch.cat([parameters["a"], parameters["b"]])
        (joined * torch.tensor(record)).sum().backward()

    out = clipped_sum(parameters, gradients, add, clip)
    return torch.cat([out["a"], out["b"]])


def test_a_gradient_within_the_bound_is_unchanged_and_one_beyond_has_its_length() -> None:
    inside, beyond = [0.6, 0.0, 0.79], [30.0, 0.0, 40.0]  # norms 0.992 and 50
    assert torch.allclose(summed([inside], 1.0), torch.tensor(inside).double(), atol=1e-7)
    clipped = summed([beyond], 1.0)
    assert clipped.norm() <= 1
    assert torch.allclose(clipped, torch.tensor([0.6, 0.0, 0.8]).double(), atol=2e-6)
    both = summed([inside, beyond], 1.0)
    assert torch.allclose(both, torch.tensor([1.2, 0.0, 1.59]).double(), atol=2e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e30])
def test_one_patient_moves_the_sum_at_most_by_the_bound(size) -> None:
    rng = np.random.default_rng(1)
    others = rng.standard_normal((20, 3)).tolist()
    guest = (size * rng.standard_normal(3)).tolist()
    for clip in (0.5, 2.0):
        moved = (summed([*others, guest], clip) - summed(others, clip)).norm()
        assert moved <= clip * (1 + 1e-12)
        if size >= 1e3:
            assert moved > 0.999 * clip  # the bound is reached


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_counts_as_none(bad) -> None:
    assert torch.equal(
        summed([[0.1, 0.0, 0.0], [bad, 1.0, 1.0]], 1.0), summed([[0.1, 0.0, 0.0]], 1.0)
    )


def test_without_a_record_the_sum_is_zero() -> None:
    assert torch.equal(summed([], 1.0), torch.zeros(3, dtype=torch.float64))


# noise and draws ---------------------------------------------------------------------------------


def test_the_noise_has_the_stated_variance_and_shape_of_a_gaussian() -> None:
    """200,000 values: the standard error of the deviation is 0.16 %, of the mean 0.22 %."""
    values = gaussian(torch.zeros(100_001, 2), 3.0, seeded("noise")).numpy() / 3.0
    assert values.shape == (100_001, 2)
    assert abs(values.std() - 1) < 0.005
    assert abs(values.mean()) < 0.007
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.01
    for quantile in (0.01, 0.3, 0.9, 0.999):
        share = (values < norm.ppf(quantile)).mean()
        assert abs(share - quantile) < 3.3 * math.sqrt(quantile * (1 - quantile) / values.size)


def test_noise_comes_from_no_seed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    one = gaussian(torch.zeros(10), 1.0)
    torch.manual_seed(1)
    np.random.seed(1)
    assert not torch.equal(one, gaussian(torch.zeros(10), 1.0))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_each_patient_is_drawn_by_itself_with_the_rate(rate) -> None:
    """400 rounds of 50 patients: how often each one is drawn, and how many there are in a round."""
    entropy = seeded(f"draws-{rate}")
    chosen = np.zeros((400, 50))
    for row in chosen:
        row[drawn(50, rate, entropy)] = 1
    low, high = binom.ppf([1e-6, 1 - 1e-6], 400, rate)
    assert ((low <= chosen.sum(0)) & (chosen.sum(0) <= high)).all()
    variance = (
        50 * rate * (1 - rate)
    )  # of a number that is binomial, unlike that of a shuffled pass
    assert chosen.sum(1).var() == pytest.approx(variance, rel=0.25, abs=1e-12)


# ledger ------------------------------------------------------------------------------------------

COST = RunCost("glioma", rate=0.1, noise=2.0, rounds=100)
DELTA = 1e-5
WHOLE = epsilon_of([COST.planned], DELTA)
TWICE = epsilon_of([COST.planned, COST.planned], DELTA)


def test_a_study_is_refused_from_the_budget_on(tmp_path) -> None:
    enough, short = Budget(WHOLE + 1e-3, DELTA), Budget(WHOLE - 1e-3, DELTA)
    Ledger(tmp_path / "a", enough).require("run", COST)
    with pytest.raises(PolicyError, match=r"epsilon would be .* at delta 1e-05"):
        Ledger(tmp_path / "a", short).require("run", COST)
    with pytest.raises(PolicyError, match="privacy_epsilon"):
        Ledger(tmp_path / "a", short).spend("run", COST, 0, "m")
    assert not (tmp_path / "a").exists()


def test_what_other_studies_have_spent_counts(tmp_path) -> None:
    path = tmp_path / "ledger"
    first = Ledger(path, Budget(TWICE + 1e-3, DELTA))
    for number in range(100):
        first.spend("one", COST, number, f"m{number}")
    assert first.spent(DELTA) == pytest.approx(WHOLE, abs=1e-9)
    Ledger(path, Budget(TWICE + 1e-3, DELTA)).require("two", COST)
    with pytest.raises(PolicyError, match=rf"and {WHOLE:.3g} has been spent"):
        Ledger(path, Budget(TWICE - 1e-3, DELTA)).require("two", COST)
    # the same run is not counted beside itself
    Ledger(path, Budget(WHOLE + 1e-3, DELTA)).require("one", COST)
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_round_is_answered_twice(tmp_path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.spend("run", COST, 0, "m0")
    ledger.spend("run", COST, 1, "m1")
    ledger.spend("run", COST, 1, "m1")  # the same message again
    assert ledger.runs()["run"].answered == 2
    for number, model in ((1, "other"), (0, "m0"), (100, "m")):
        with pytest.raises(PolicyError, match=f"round {number}: .* answers none twice"):
            ledger.spend("run", COST, number, model)
    ledger.spend("run", COST, 99, "m")
    assert ledger.runs()["run"].answered == 3


@pytest.mark.parametrize("text", ["", "[]", "{", '{"run": {}}', '{"run": {"study": 1}}'])
def test_a_damaged_ledger_is_refused(tmp_path, text) -> None:
    path = tmp_path / "ledger"
    path.write_text(text)
    with pytest.raises(PolicyError, match="restore it from a backup"):
        Ledger(path).spend("run", COST, 0, "m")


# settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("privacy", "federation", "words"),
    [
        ({}, {}, ""),
        ({"noise": None, "epsilon": 8.0}, {}, ""),
        ({"epsilon": 8.0}, {}, "either noise or epsilon"),
        ({"noise": None}, {}, "either noise or epsilon"),
        ({"noise": 0.0}, {}, "privacy.noise"),
        ({"noise": None, "epsilon": 0.0}, {}, "privacy.epsilon"),
        ({"clip": 0.0}, {}, "privacy.clip"),
        ({"delta": 0.009}, {}, ""),
        ({"delta": 0.01}, {}, "privacy.delta"),
        ({"patients": 8}, {}, ""),
        ({"patients": 7}, {}, "train.batch: at most privacy.patients"),
        ({}, {"method": "fedavg"}, "privacy: it is for gradients"),
        ({}, {"continues": "0" * 24}, "federation.continues"),
        ({}, {"compress": "int8"}, ""),
    ],
)
def test_settings_that_contradict_each_other_are_refused(privacy, federation, words) -> None:
    settings = {**dataclasses.asdict(PRIVACY), **privacy}
    raw = {
        "name": "s",
        "data": {"root": ".", "train": ["a"], "external": ["b"]},
        "privacy": {k: v for k, v in settings.items() if v is not None},
        "federation": federation,
    }
    if words:
        with pytest.raises(StudyError, match=words):
            parse_study(raw)
        return
    import tomllib

    study = parse_study(raw)
    assert parse_study(tomllib.loads(study_toml(study))).digest == study.digest
    plain = {k: v for k, v in raw.items() if k != "privacy"}
    assert parse_study(plain).digest != study.digest


def test_a_policy_can_require_noise(tiny_study) -> None:
    strict = SitePolicy(require_privacy=True)
    enforce_private(SitePolicy(), tiny_study)
    with pytest.raises(PolicyError, match="require_privacy"):
        enforce_private(strict, tiny_study)
    enforce_private(strict, dataclasses.replace(tiny_study, privacy=PRIVACY))


def test_the_labels_of_a_patient_do_not_depend_on_the_number_of_others(make_prepared) -> None:
    from gliofed.federated.governance.policy import hide_labels

    cases = [make_prepared(f"a{i}", {"idh": "mutant"}, "a") for i in range(4)]
    policy = SitePolicy(smallest_count=5, markers=("idh",))
    assert all(c.case.labels == Labels({}) for c in hide_labels(policy, cases))
    assert hide_labels(policy, cases, private=True) == tuple(cases)
    closed = dataclasses.replace(policy, markers=())
    assert all(c.case.labels == Labels({}) for c in hide_labels(closed, cases, private=True))


def test_whether_a_patient_is_held_out_does_not_depend_on_the_others(make_prepared) -> None:
    from gliofed.data.splits import make_splits
    from gliofed.study import DataConfig

    cases = [make_prepared(f"a{i}", {}, "a").case for i in range(2)]
    many = [dataclasses.replace(cases[0], id=f"x{i}", patient=f"x{i}") for i in range(200)]
    data = DataConfig(root=None, train=("a",), external=("b",), holdout=0.3)

    def held(own, alone):
        (split,) = make_splits(data, {"a": own, "b": []}, 1, alone)
        return {c.patient for c in split.holdout["a"]}

    whole = held(many, alone=True)
    assert 40 < len(whole) < 80  # 60 on average, standard deviation 6.5
    changed = 0
    for gone in range(0, 200, 10):
        rest = many[:gone] + many[gone + 1 :]
        assert held(rest, alone=True) == whole - {f"x{gone}"}
        changed += held(rest, alone=False) != held(many, alone=False) - {f"x{gone}"}
    assert changed  # which it does without [privacy]


def test_no_study_is_approved_beyond_the_budget_that_is_left(tmp_path) -> None:
    """Both sides of the budget, without and with what another study has spent."""
    from gliofed.deployment.approval import consent
    from gliofed.federated.noise.ledger import LEDGER

    study, policy = tmp_path / "study.toml", tmp_path / "policy.toml"
    study.write_text(
        'name = "s"\n[data]\nroot = "."\ntrain = ["a"]\nexternal = ["b"]\n'
        "[train]\nepochs = 4\nbatch = 8\n"
        "[privacy]\nclip = 1.0\npatients = 8\ndelta = 1e-3\nnoise = 8.0\n"
    )
    whole = Mechanism(1.0, 8.0, 4)
    cost, twice = epsilon_of([whole], 1e-5), epsilon_of([whole, whole], 1e-5)

    def refused(budget: float) -> bool:
        policy.write_text(f"privacy_epsilon = {budget}\n")
        try:
            consent(study, policy)
        except PolicyError as error:
            assert "privacy_epsilon" in str(error)
            return True
        return False

    assert (refused(cost - 1e-3), refused(cost + 1e-3)) == (True, False)
    ledger = Ledger(tmp_path / LEDGER)
    for number in range(4):
        ledger.spend("other", RunCost("other", 1.0, 8.0, 4), number, f"m{number}")
    assert (refused(twice - 1e-3), refused(twice + 1e-3)) == (True, False)
    policy.write_text("require_privacy = true\n")
    study.write_text(study.read_text().split("[privacy]")[0])
    with pytest.raises(PolicyError, match="require_privacy"):
        consent(study, policy)
