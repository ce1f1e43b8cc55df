"""What one lying site of seven can do to a secret sum: which attacks are caught, and which are not.

The attacks are those of `benchmarks/attacks.py`, made by a site whose program is the honest one but
for its gradient, or by one that changes what it sends after its own bounds and masks.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from secret_sites import MODEL, NAMES, federation, gradient_of, plain_sum, training

from gliofed.errors import QuorumError
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.privacy.fixed_point import WIDE
from gliofed.federated.privacy.messages import load_masked, save_masked
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.summed import SummedUpdates

LARGEST = 1000.0
"""`max_gradient`; honest gradients have a norm of 14."""


@pytest.fixture
def study(tiny_study):
    rules = dataclasses.replace(
        tiny_study.federation, privacy="secure-sum", max_gradient=LARGEST, quorum=1
    )
    data = dataclasses.replace(tiny_study.data, train=NAMES)
    return dataclasses.replace(tiny_study, federation=rules, data=data)


def times(factor):
    return lambda own: {k: factor * t for k, t in own.items()}


def of_length(length):
    return lambda own: {k: t * (length / norm(own)) for k, t in own.items()}


def only_a_bias(own):
    return {
        k: norm(own) * (k == "mask.weight") / 3**0.5 * torch.ones_like(t) for k, t in own.items()
    }


def with_value(value):
    return lambda own: {**own, "mask.weight": torch.tensor([0.0, value, 0.0])}


UNSEEN = {
    "flip": times(-1.0),
    "flip5": times(-5.0),
    "flip20": times(-20.0),
    "scale": of_length(0.99 * LARGEST),
    "bias": only_a_bias,
    "labels": lambda own: gradient_of("x"),  # of other labels: another gradient of that length
}
REFUSED = {
    "longer than the bound": of_length(1.01 * LARGEST),
    "NaN": with_value(math.nan),
    "infinity": with_value(math.inf),
}


def summed_round(study, folder, change=lambda site, kind, file: None, lie=None):
    """One round of seven sites; the merged sum and the round's failures. lie: of site c."""
    sites, engine, _ = federation(study, folder, change=change)
    if lie is not None:
        sites[2].gradient = lie(sites[2].gradient)
    updates = SummedUpdates(engine, FederatedRun(study, "run", 1, folder))
    updates.count({})
    merged = {}

    class Server:
        def add_sum(self, read, cases, counts):
            merged.update({k: read(k) for k in MODEL})

    with updates.round(training(), Server()) as received:
        return sites, merged, received


@pytest.mark.parametrize("attack", UNSEEN)
def test_an_attack_within_the_bound_is_in_the_model_and_names_nobody(
    study, tmp_path, attack
) -> None:
    sites, merged, received = summed_round(study, tmp_path, lie=UNSEEN[attack])
    assert not received.failures
    assert set(received.seconds) == set(NAMES)
    for name, whole in plain_sum(sites).items():
        assert (merged[name] - whole).abs().max() <= 7 * 2.0**-41
    honest = sum(g["mask.weight"] for g in map(gradient_of, NAMES))
    assert (merged["mask.weight"] - honest).abs().max() > 0.1


@pytest.mark.parametrize("attack", REFUSED)
def test_an_honest_program_refuses_a_broken_gradient_before_it_is_masked(
    study, tmp_path, attack
) -> None:
    sites, merged, received = summed_round(study, tmp_path, lie=REFUSED[attack])
    assert set(received.failures) == {"c"}
    assert "max_gradient" in received.failures["c"]
    others = plain_sum([s for s in sites if s.name != "c"])
    for name, whole in others.items():
        assert (merged[name] - whole).abs().max() <= 7 * 2.0**-41


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_a_changed_program_is_caught_from_the_bound_of_the_sum_on(study, tmp_path, share) -> None:
    """Without its own check, one site of seven can send seven times `max_gradient`, and no more."""

    def change(site, kind, file):
        if (site, kind) == ("c", "train"):
            masked = load_masked(file, MODEL)
            tensors = {k: t.clone() for k, t in masked.tensors.items()}
            tensors["mask.weight"][0] += int(share * len(NAMES) * LARGEST / WIDE.unit)
            save_masked(file, dataclasses.replace(masked, tensors=tensors))

    if share > 1:
        with pytest.raises(QuorumError, match=r"above 7 x 1000 \(max_gradient\)"):
            summed_round(study, tmp_path, change)
        return
    _, merged, received = summed_round(study, tmp_path, change)
    assert float(merged["mask.weight"][0]) > 6000
    assert not received.failures
