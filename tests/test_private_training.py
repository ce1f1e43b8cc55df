"""Training with [privacy]: what leaves, how often, and that each patient is bounded."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gliofed.errors import PolicyError, QuorumError, StudyError, UpdateError
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.compression import RESIDUAL, expand
from gliofed.federated.gate import UpdateGate
from gliofed.federated.governance.consent import what_leaves
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.label_counts import class_weights
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import (
    CountsRequest,
    TrainingRequest,
    load_counts,
    load_update,
    save_request,
)
from gliofed.federated.named_tensors import split_tensors
from gliofed.federated.noise.accounting import epsilon_of, mechanism_of
from gliofed.federated.noise.ledger import LEDGER, Ledger
from gliofed.federated.noise.shares import largest_gradient, noise_of_site, sharing_sites
from gliofed.federated.noise.site_rounds import NoisyGradients, records
from gliofed.federated.noise.stated_counts import stated_cases_a_round, stated_counts
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.strategies.synchronous import JointStep
from gliofed.federated.wire import load
from gliofed.models.network import build_net
from gliofed.privacy_config import PrivacyConfig
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig
from gliofed.training.loop import add_gradient, batch_of

CPU = Device(torch.device("cpu"), bf16=False)
OPEN = SitePolicy(min_cases=1, min_batch=1, smallest_count=1, privacy_epsilon=1e4)
PRIVACY = PrivacyConfig(clip=1.0, patients=8, delta=1e-3, noise=2.0)
KINDS = ({"idh": "mutant", "grade": "2"}, {"idh": "wildtype", "grade": "4"})


@pytest.fixture
def hospitals(make_prepared):
    return {
        site: [make_prepared(f"{site}{i}", KINDS[i % 2], site) for i in range(size)]
        for site, size in (("a", 5), ("b", 3))
    }


@pytest.fixture
def study(tiny_study):
    data = dataclasses.replace(tiny_study.data, train=("a", "b"))
    train = dataclasses.replace(tiny_study.train, epochs=2, batch=4)
    return dataclasses.replace(tiny_study, data=data, train=train, privacy=PRIVACY)


def with_privacy(study, **settings):
    return dataclasses.replace(study, privacy=dataclasses.replace(study.privacy, **settings))


def client(site, cases, study, folder, policy=OPEN):
    setup = ClientSetup(study, 1, folder / "sites" / site, CPU, rejoins=True)
    return Client(SiteData(site, cases), setup, policy)


def federate(hospitals, study, folder, policy=OPEN, should_stop=lambda done: False):
    sites = [client(name, cases, study, folder, policy) for name, cases in hospitals.items()]
    run = FederatedRun(study, "run", 1, folder / "rounds")
    return run_rounds(LocalEngine(sites, folder), run, should_stop=should_stop)


def asked(study, number=0, seed=1):
    counts = stated_counts(study)
    return TrainingRequest(
        run="run",
        nonce=f"{number:032d}",
        round=number,
        rounds=4,
        batches=2,
        weights=build_net(NetworkConfig("small"), seed).state_dict(),
        class_weights=class_weights(counts),
        cases=counts.cases,
        labelled=counts.labelled,
    )


def response(site, request, folder):
    save_request(folder / "request", request)
    site.respond(folder / "request", folder / "response")
    return load_update(folder / "response")


def gradients(cases, study, **change):
    return NoisyGradients("a", cases, dataclasses.replace(study, **change), 1, CPU)


def sum_without_noise(cases, study, rate=1.0):
    """The sum of the clipped gradients of the drawn patients, without noise."""
    quiet = with_privacy(study, noise=1e-12)
    batch = round(rate * quiet.privacy.patients)
    quiet = dataclasses.replace(quiet, train=dataclasses.replace(quiet.train, batch=batch))
    net = build_net(NetworkConfig("small"), 1)
    sent = gradients(cases, quiet).compute(net, dict(net.named_parameters()), 0)
    return {k: t.double() * batch for k, t in sent.items()}


def norm_of(tensors) -> float:
    return float(sum(t.double().square().sum() for t in tensors.values()) ** 0.5)


def less(one, other):
    return {k: t - other[k] for k, t in one.items()}


@pytest.mark.slow
def test_a_run_is_complete_and_its_ledger_has_each_round(hospitals, study, tmp_path) -> None:
    part = federate(hospitals, study, tmp_path, should_stop=lambda done: done == 3)
    assert part.rounds == 3
    state = federate(hospitals, study, tmp_path)
    assert (state.rounds, state.schedule.commit) == (4, 1)
    for site in hospitals:
        (own,) = Ledger(tmp_path / "sites" / site / LEDGER).runs().values()
        assert (own.answered, own.last, own.rate, own.noise) == (4, 3, 0.5, 2.0)
    assert not any(p.losses for p in state.history)  # no statistic leaves
    assert state.counts == dict.fromkeys(hospitals, stated_counts(study))


def test_counts_follow_from_the_study_alone(hospitals, study, tmp_path, make_prepared) -> None:
    sent = []
    for cases in (hospitals["a"], [make_prepared("z", {"mgmt": "methylated"}, "a", mask=False)]):
        save_request(tmp_path / "request", CountsRequest("run", "0" * 32))
        site = client("a", cases, study, tmp_path)
        site.respond(tmp_path / "request", tmp_path / "response")
        sent.append(load_counts(tmp_path / "response").counts)
    assert sent[0] == sent[1] == stated_counts(study)
    weights = class_weights(sent[0])
    assert all(w == pytest.approx(1) for own in weights.values() for w in own)
    without = dataclasses.replace(
        study, loss=dataclasses.replace(study.loss, markers={**study.loss.markers, "mgmt": 0.0})
    )
    assert stated_counts(without).classes["mgmt"] == (0, 0)


def test_an_update_tells_no_number_of_patients(hospitals, study, tmp_path) -> None:
    for cases in (hospitals["a"], hospitals["a"][:1]):
        folder = tmp_path / str(len(cases))
        folder.mkdir()
        site = client("a", cases, study, folder)
        request = asked(study)
        assert not site.has_no_case(request)
        update = response(site, request, folder)
        assert update.cases == stated_cases_a_round(study) == 2
        assert (update.stats, update.labelled) == ({}, {})
        gate = UpdateGate(request, study.federation, (), noise_of_site(study))
        gate.check("a", folder / "response")


def test_a_round_without_a_patient_has_noise_alone(hospitals, study) -> None:
    """A rate of 1e-9 draws nobody. Bounds are five standard errors."""
    rare = with_privacy(study, patients=4 * 10**9)
    net = build_net(NetworkConfig("small"), 1)
    sent = gradients(hospitals["a"], rare).compute(net, dict(net.named_parameters()), 0)
    values = torch.cat([t.flatten() for t in sent.values()])
    assert values.dtype == torch.float32
    error = values.numel() ** -0.5
    assert float(values.std()) == pytest.approx(2.0 / 4, rel=5 * error / 2**0.5)
    assert float(values.mean()) == pytest.approx(0, abs=5 * error * 2.0 / 4)
    assert error < 0.01


@pytest.mark.slow
def test_the_sum_of_sites_has_the_sum_of_their_variances(hospitals, study) -> None:
    rare = with_privacy(study, patients=4 * 10**9)
    summed = None
    for _ in range(3):
        net = build_net(NetworkConfig("small"), 1)
        sent = gradients([], rare).compute(net, dict(net.named_parameters()), 0)
        values = torch.cat([t.flatten() for t in sent.values()])
        summed = values if summed is None else summed + values
    error = 5 / (2 * summed.numel()) ** 0.5
    assert float(summed.std()) == pytest.approx(3**0.5 * 2.0 / 4, rel=error)


def test_shares_of_the_noise_add_up_in_the_smallest_sum(study) -> None:
    seven = dataclasses.replace(study.data, train=tuple("abcdefg"))
    summed = dataclasses.replace(
        study,
        data=seven,
        federation=dataclasses.replace(study.federation, privacy="secure-sum"),
    )
    assert (sharing_sites(study), sharing_sites(summed)) == (1, 5)  # of 7, 5 open a sum
    whole = noise_of_site(dataclasses.replace(study, data=seven))
    assert 5 * noise_of_site(summed) ** 2 == pytest.approx(whole**2)
    assert largest_gradient(summed, 100) == pytest.approx(1000 + 20 * noise_of_site(summed))
    loud = with_privacy(summed, noise=1e6)
    with pytest.raises(StudyError, match="noise is too large for"):
        largest_gradient(loud, 10**6)


@pytest.mark.slow
def test_one_patient_moves_the_sum_at_most_by_clip(hospitals, study) -> None:
    """All are drawn; the guest's scans have values a million times those of the others."""
    cases = hospitals["a"]
    image = (cases[0].image.astype("float32") * 1e4).clip(-6e4, 6e4).astype("float16")
    huge = dataclasses.replace(cases[0], image=image)
    for clip in (1e-3, 1.0):
        own = with_privacy(study, clip=clip)
        without = sum_without_noise(cases[1:], own)
        for guest in (cases[0], huge):
            moved = norm_of(less(sum_without_noise([guest, *cases[1:]], own), without))
            assert moved <= clip * (1 + 1e-4)  # float32 on the way
        assert moved > 0.9 * clip


@pytest.mark.slow
def test_scans_of_one_patient_are_one_record(hospitals, study) -> None:
    """Two scans of one patient together move the sum by clip, those of two by up to two clips."""
    small = with_privacy(study, clip=1e-3)
    one, two = hospitals["a"][0], hospitals["a"][2]
    same = dataclasses.replace(two, case=dataclasses.replace(two.case, patient=one.case.patient))
    assert [len(r) for r in records([one, same, *hospitals["b"]])] == [2, 1, 1, 1]
    assert norm_of(sum_without_noise([one, same], small)) <= 1e-3 * (1 + 1e-4)
    assert norm_of(sum_without_noise([one, two], small)) > 1.1e-3


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["max", "mask"])
def test_nothing_is_computed_across_patients(hospitals, study, pooling) -> None:
    """The gradient of a joint batch is the sum of those of its cases, each computed by itself."""
    config = NetworkConfig("small", pooling=pooling)
    study = dataclasses.replace(study, net=config)
    plan = gradients(hospitals["a"], study)._plan
    found = []
    for groups in ([hospitals["a"][:3]], [[c] for c in hospitals["a"][:3]]):
        net = build_net(config, 1)
        for group in groups:
            add_gradient(net, plan, batch_of(plan, [("a", c) for c in group], 0))
        found.append({k: p.grad for k, p in net.named_parameters() if p.grad is not None})
    together, alone = found
    assert norm_of(less(together, alone)) < 1e-4 * norm_of(together)


def test_a_repeated_round_gets_the_same_bytes_and_another_model_nothing(
    hospitals, study, tmp_path
) -> None:
    site = client("a", hospitals["a"], study, tmp_path)
    request = asked(study)
    first = response(site, request, tmp_path)
    again = client("a", hospitals["a"], study, tmp_path)  # as after a restart
    repeated = response(again, dataclasses.replace(request, nonce="f" * 32), tmp_path)
    assert repeated.nonce == "f" * 32
    assert all(torch.equal(t, first.tensors[k]) for k, t in repeated.tensors.items())
    ledger = Ledger(tmp_path / "sites/a" / LEDGER)
    assert ledger.runs()["run"].answered == 1
    with pytest.raises(PolicyError, match="answers none twice"):
        response(again, asked(study, seed=2), tmp_path)
    following = response(again, asked(study, 1), tmp_path)
    assert ledger.runs()["run"].answered == 2
    name = "mask.weight"  # fresh noise: the same model, and no value is the same
    assert not (following.tensors[name] == first.tensors[name]).any()
    with pytest.raises(PolicyError, match="answers none twice"):
        response(again, request, tmp_path)
    with pytest.raises(UpdateError, match="round 4 of 4"):
        response(again, asked(study, 4), tmp_path)


def test_nothing_leaves_before_it_is_in_the_ledger(hospitals, study, tmp_path, monkeypatch) -> None:
    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("gliofed.federated.noise.ledger.write_bytes", fails)
    with pytest.raises(OSError, match="disk full"):
        response(client("a", hospitals["a"], study, tmp_path), asked(study), tmp_path)
    assert not (tmp_path / "response").exists()
    monkeypatch.undo()
    response(client("a", hospitals["a"], study, tmp_path), asked(study), tmp_path)
    assert Ledger(tmp_path / "sites/a" / LEDGER).runs()["run"].answered == 1


@pytest.mark.parametrize("how", ["int8", "bfloat16"])
def test_what_is_compressed_has_its_noise_already(
    hospitals, study, tmp_path, monkeypatch, how
) -> None:
    """Of the noisy gradient that the ledger has, sent and residual are the parts. A gradient that
    is not in the ledger leaves no residual, which would be part of the next one."""
    study = dataclasses.replace(
        study, federation=dataclasses.replace(study.federation, compress=how)
    )
    folder = tmp_path / "sites/a"

    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("gliofed.federated.noise.ledger.write_bytes", fails)
    with pytest.raises(OSError, match="disk full"):
        response(client("a", hospitals["a"], study, tmp_path), asked(study), tmp_path)
    assert not list(folder.glob("after-*"))
    monkeypatch.undo()
    site = client("a", hospitals["a"], study, tmp_path)
    update = response(site, asked(study), tmp_path)
    noisy = load_update(folder / "last-private-update.safetensors").tensors
    sent = expand(update.tensors, update.extra)
    residual = split_tensors(load(folder / "after-00000.safetensors")[0])[1][RESIDUAL]
    for name, whole in noisy.items():
        assert update.tensors[name].dtype != torch.float32
        torch.testing.assert_close(sent[name] + residual[name], whole, rtol=1e-6, atol=1e-6)
    again = response(client("a", hospitals["a"], study, tmp_path), asked(study), tmp_path)
    assert all(torch.equal(t, update.tensors[k]) for k, t in again.tensors.items())
    assert Ledger(folder / LEDGER).runs()["run"].answered == 1


def test_a_study_beyond_the_budget_gets_no_gradient(hospitals, study, tmp_path) -> None:
    cost = Ledger(tmp_path / "none").spent(1e-5)
    assert cost == 0
    tight = dataclasses.replace(OPEN, privacy_epsilon=0.5)
    with pytest.raises(QuorumError, match="privacy_epsilon"):
        federate(hospitals, study, tmp_path, policy=tight)
    assert not (tmp_path / "sites/a" / LEDGER).exists()


def test_a_policy_that_requires_noise_gives_no_counts_without(hospitals, study, tmp_path) -> None:
    strict = dataclasses.replace(OPEN, require_privacy=True)
    plain = dataclasses.replace(study, privacy=None)
    with pytest.raises(QuorumError, match="require_privacy"):
        federate(hospitals, plain, tmp_path, policy=strict)


def test_the_consent_text_has_epsilon_and_no_counts(study) -> None:
    lines = "\n".join(what_leaves(study, OPEN, None, 1000))
    assert "In each of 4 rounds: one gradient of 1,000 numbers, with noise" in lines
    assert "probability of 0.5" in lines
    assert "noise of standard deviation 2 is added" in lines
    epsilon = epsilon_of([mechanism_of(study)], 1e-3)
    assert f"epsilon {epsilon:.3g} at delta 0.001 for each patient" in lines
    assert "No count" in lines


@pytest.mark.slow
def test_with_secret_sums_the_sum_has_the_whole_noise(
    make_prepared, study, tmp_path, monkeypatch
) -> None:
    """Three sites, of which all open a sum: each adds a third of the variance."""
    names = ("a", "b", "c")
    summed = dataclasses.replace(
        study,  # a patient's gradient of norm 1 adds next to nothing to thousands of values
        data=dataclasses.replace(study.data, train=names),
        federation=dataclasses.replace(study.federation, privacy="secure-sum"),
    )
    seen = []
    add_sum = JointStep.add_sum

    def watched(self, read, cases, counts):
        seen.append((torch.cat([read(n).flatten() for n in self.trained]), cases))
        add_sum(self, read, cases, counts)

    monkeypatch.setattr(JointStep, "add_sum", watched)
    hospitals = {name: [make_prepared(f"{name}0", KINDS[0], name)] for name in names}
    federate(hospitals, summed, tmp_path, should_stop=lambda done: done == 2)
    (first, cases), (second, _) = seen
    assert cases == 3 * stated_cases_a_round(summed)
    assert (first != second).double().mean() > 0.99
    error = 5 / (2 * first.numel()) ** 0.5
    for values in (first, second):
        assert float(values.std()) == pytest.approx(2.0 / 4, rel=error)
    few = {name: hospitals[name] for name in names[:2]}
    with pytest.raises(QuorumError):
        federate(few, summed, tmp_path / "few")
