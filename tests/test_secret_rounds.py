"""Training with secret sums: the model of plain sums, lost sites, restarts, and what is refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gliofed.errors import QuorumError, StudyError
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.local import LocalEngine
from gliofed.federated.privacy.table import MECHANISMS, mechanism_named
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.summed import ALL_SITES
from gliofed.federated.wire import read_note
from gliofed.federation_config import FederationConfig
from gliofed.models.network import build_net
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig, parse_study

CPU = Device(torch.device("cpu"), bf16=False)
KINDS = ({"idh": "mutant", "grade": "2"}, {"idh": "wildtype", "grade": "4"}, {"mgmt": "methylated"})
SIZES = {"a": 2, "b": 1, "c": 2, "d": 1}


@pytest.fixture
def hospitals(make_prepared):
    return {
        site: [make_prepared(f"{site}{i}", KINDS[(n + i) % 3], site) for i in range(size)]
        for n, (site, size) in enumerate(SIZES.items())
    }


def study_of(tiny_study, privacy="secure-sum", epochs=1, **federation):
    train = dataclasses.replace(tiny_study.train, epochs=epochs, batch=3)
    rules = dataclasses.replace(tiny_study.federation, privacy=privacy, **federation)
    data = dataclasses.replace(tiny_study.data, train=tuple(SIZES))
    return dataclasses.replace(tiny_study, train=train, federation=rules, data=data)


class Loses:
    """An engine without the response of one site to the n-th request of a kind, or from it on."""

    def __init__(self, inner, site, kind, number=0, always=False):
        self.inner, self.site, self.kind = inner, site, kind
        self.number, self.always, self.seen = number, always, 0

    def send(self, request):
        mine = read_note(request)["kind"] == self.kind
        lost = mine and (self.seen == self.number or (self.always and self.seen > self.number))
        self.seen += mine
        for reply in self.inner.send(request):
            yield SiteReply(reply.site, None, "lost") if lost and reply.site == self.site else reply


def federate(hospitals, study, folder, wrap=lambda e: e, stop=lambda done: False, **client):
    clients = [
        Client(SiteData(name, cases), ClientSetup(study, 1, folder / "sites" / name, CPU), **client)
        for name, cases in hospitals.items()
    ]
    run = FederatedRun(study, "run", 1, folder / "rounds")
    return run_rounds(wrap(LocalEngine(clients, folder)), run, should_stop=stop)


def distance(one, other) -> float:
    """L2, without biases before a normalisation, which have no effect."""
    used = [k for k in one if not k.endswith("conv.bias")]
    return math.sqrt(sum(float((one[k] - other[k]).square().sum()) for k in used))


def same(one, other) -> bool:
    return set(one) == set(other) and all(torch.equal(v, other[k]) for k, v in one.items())


def test_the_model_is_that_of_plain_sums(hospitals, tiny_study, tmp_path) -> None:
    """Gradients differ by the fixed point alone, so the moments do too; the counts are equal."""
    first, twin = (
        federate(hospitals, study_of(tiny_study, p), tmp_path / p, stop=lambda done: done == 1)
        for p in ("none", "secure-sum")
    )
    for name, moment in first.state["exp_avg"].items():
        gap = (twin.state["exp_avg"][name] - moment).abs().max()
        assert gap <= 1e-6 * moment.abs().max() + 4 * 2.0**-41, name
    plain = federate(hospitals, study_of(tiny_study, "none"), tmp_path / "none")
    secret = federate(hospitals, study_of(tiny_study), tmp_path / "secure-sum")
    assert secret.schedule == plain.schedule
    assert secret.rounds == 2
    assert secret.counts.keys() == {ALL_SITES}
    total = secret.counts[ALL_SITES]
    assert total.cases == sum(c.cases for c in plain.counts.values()) == 6
    start = build_net(NetworkConfig("small"), 1).state_dict()
    assert distance(plain.weights, secret.weights) < 1e-3 * distance(plain.weights, start)
    for mine, theirs in zip(secret.history, plain.history, strict=True):
        assert mine.losses == pytest.approx(theirs.losses, rel=1e-5)
        assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-6)
        assert mine.merged == theirs.merged
        assert mine.bytes_up < 2.2 * len(SIZES) * mine.rounds * sum(
            v.nbytes for v in secret.weights.values()
        )


def test_a_missing_site_is_made_up_for_as_with_plain_sums(hospitals, tiny_study, tmp_path) -> None:
    states = [
        federate(
            hospitals,
            study_of(tiny_study, privacy),
            tmp_path / privacy,
            wrap=lambda e: Loses(e, "b", "train"),
        )
        for privacy in ("none", "secure-sum")
    ]
    plain, secret = (s.history[0] for s in states)
    assert plain.gradient_norm == pytest.approx(secret.gradient_norm, rel=1e-6)
    assert plain.refused.keys() == secret.refused.keys() == {"b"}
    assert secret.merged == plain.merged == {"a": 2, "b": 1, "c": 2, "d": 2}


def test_below_the_threshold_the_run_stops_and_goes_on_later(
    hospitals, tiny_study, tmp_path
) -> None:
    """Of four sites three have to be there. The end is that of a run without a stop, bit for bit."""
    study = study_of(tiny_study, epochs=2, commit=1)
    whole = federate(hospitals, study, tmp_path / "whole")
    two = {"a": hospitals["a"], "b": hospitals["b"]}
    with pytest.raises(QuorumError, match="2 of at least 3"):
        federate(two, study, tmp_path / "stopped")
    halted = federate(hospitals, study, tmp_path / "stopped", stop=lambda done: done == 2)
    assert halted.rounds == 2
    ended = federate(hospitals, study, tmp_path / "stopped")
    assert same(ended.weights, whole.weights)
    assert same(ended.state["exp_avg_sq"], whole.state["exp_avg_sq"])


def test_a_repeated_round_is_without_the_sites_that_are_back(
    hospitals, tiny_study, tmp_path
) -> None:
    """A round was summed without d and not committed. With d, its two sums would give d's update:
    the sites would open none. So it is repeated without d, which takes part in the next one."""
    study = study_of(tiny_study, epochs=2, commit=2)
    lost = federate(
        hospitals,
        study,
        tmp_path / "whole",
        wrap=lambda e: Loses(e, "d", "train"),
    )
    with pytest.raises(QuorumError, match="2 of at least 3"):  # in the round after it
        federate(
            hospitals,
            study,
            tmp_path / "stopped",
            wrap=lambda e: Loses(
                Loses(e, "d", "train", always=True), "c", "train", number=1, always=True
            ),
        )
    ended = federate(hospitals, study, tmp_path / "stopped")
    assert ended.history[0].merged == {"a": 2, "b": 2, "c": 2, "d": 1}
    assert "before a stop" in ended.history[0].refused["d"]
    assert same(ended.weights, lost.weights)


def test_a_site_that_was_not_counted_waits_for_the_next_start(
    hospitals, tiny_study, tmp_path
) -> None:
    state = federate(
        hospitals, study_of(tiny_study), tmp_path, wrap=lambda e: Loses(e, "d", "count")
    )
    assert state.counts[ALL_SITES].cases == 5
    assert set(state.history[-1].merged) == {"a", "b", "c"}
    assert "not counted" in state.history[-1].refused["d"]


def test_a_policy_limits_a_secret_sum(make_prepared, tiny_study, tmp_path) -> None:
    """Counts are hidden before they are summed; a policy of five sites opens no sum of four."""
    cases = {
        s: [make_prepared(f"{s}{i}", {"idh": "mutant" if i else "wildtype"}, s) for i in range(6)]
        for s in SIZES
    }
    policy = SitePolicy(min_cases=5, min_batch=1, smallest_count=5)
    study = study_of(tiny_study, epochs=1)
    study = dataclasses.replace(study, train=dataclasses.replace(study.train, batch=24))
    state = federate(cases, study, tmp_path / "four", policy=policy)
    # of six, one is hidden, and the largest count is lowered so that it does not follow
    assert state.counts[ALL_SITES].classes["idh"] == (0, 0)
    five = dataclasses.replace(policy, min_sites=5)
    with pytest.raises(QuorumError, match="min_sites"):
        federate(cases, study, tmp_path / "five", policy=five)


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_every_mechanism_trains_and_says_what_it_costs(
    name, hospitals, tiny_study, tmp_path
) -> None:
    row = mechanism_named(name)
    assert row.id == name
    assert all((row.source, row.sees, row.cost))
    study = study_of(tiny_study, name)
    assert study.federation.privacy == name
    state = federate(hospitals, study, tmp_path, stop=lambda done: done == 1)
    sent = state.history[0].bytes_up / len(SIZES)
    size = sum(v.nbytes for v in state.weights.values())
    assert sent < row.value_bytes / 4 * size + 200_000
    assert state.rounds == 1


def test_an_unknown_mechanism_is_refused() -> None:
    with pytest.raises(StudyError, match="is none of"):
        mechanism_named("trust")


RAW = {
    "name": "x",
    "data": {"root": ".", "train": ["a", "b", "c"], "external": ["z"]},
    "federation": {"privacy": "secure-sum"},
}


@pytest.mark.parametrize(
    ("section", "values", "why"),
    [
        ("federation", {"method": "fedavg"}, "synchronous"),
        ("federation", {"aggregation": "median"}, "compare the updates"),
        ("federation", {"compress": "int8"}, 'cannot add "int8"'),
        ("federation", {"compress": "bfloat16"}, "one unit for all sites"),
        ("federation", {"leave_out_after": 3}, "leave out clip_ratio"),
        ("federation", {"clip_ratio": 4.0}, "leave out clip_ratio"),
        ("federation", {"max_gradient": 2.0**22 / 3 + 1}, "out of range"),
        ("data", {"train": ["a", "b"]}, "at least 3"),
        ("data", {"external": [], "leave_one_out": ["a"]}, "for each model, here 2"),
        ("data", {"train": [f"s{i}" for i in range(65)]}, "at most 64"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_the_reason(section, values, why) -> None:
    assert parse_study(RAW).federation.privacy == "secure-sum"
    changed = {**RAW, section: {**RAW[section], **values}}
    with pytest.raises(StudyError, match=why):
        parse_study(changed)
    plain = {**changed, "federation": {**changed["federation"], "privacy": "none"}}
    assert parse_study(plain).federation.privacy == "none"


def test_the_limits_themselves_are_allowed() -> None:
    many = {**RAW, "data": {**RAW["data"], "train": [f"s{i}" for i in range(64)]}}
    assert len(parse_study(many).data.train) == 64
    rules = {"privacy": "secure-sum", "max_gradient": 2.0**22 / 4}
    four = {"root": ".", "train": list("abcd"), "leave_one_out": ["a"]}
    assert parse_study({**RAW, "data": four, "federation": rules}).federation.max_gradient == 2**20


def test_a_study_without_it_keeps_its_digest(tiny_study) -> None:
    """The digest of studies that were approved before the setting existed."""
    plain = study_of(tiny_study, "none")
    assert plain.digest != study_of(tiny_study).digest
    assert "privacy" in {f.name for f in dataclasses.fields(FederationConfig)}
