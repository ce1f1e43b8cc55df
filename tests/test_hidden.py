"""A model's answers where sequences are missing: what is hidden, what it costs, calibrations."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.sequence_ablation import (
    WITHOUT,
    ablation_scores,
    calibrations_by_missing,
    dropped_sets,
)
from gliofed.inference.forward import drop_sequences, predict, used_case
from gliofed.markers import MARKERS
from gliofed.models.network import build_net, untrained_sequences
from gliofed.runtime.device import Device
from gliofed.study import CalibrationConfig, NetworkConfig
from gliofed.types import SEQUENCES, Labels, Sequence

T1, T1CE, T2, FLAIR = SEQUENCES


def scanned(make_prepared, *sequences: Sequence):
    own = make_prepared("a", {}, "one")
    return dataclasses.replace(own, present=tuple(s in sequences for s in SEQUENCES))


def test_a_hidden_sequence_is_as_one_that_was_never_scanned(make_prepared) -> None:
    own = make_prepared("a", {}, "one")
    less = drop_sequences(own, frozenset({T1CE, FLAIR}))
    assert less.present == (own.present[0], False, own.present[2], False)
    assert not less.image[1].any()
    assert not less.image[3].any()
    assert np.array_equal(less.image[[0, 2]], own.image[[0, 2]])
    assert own.image[3].any()  # the case itself stays


def test_sequences_that_no_training_case_had_are_left_out_of_every_prediction(
    make_prepared,
) -> None:
    own, cpu = scanned(make_prepared, *SEQUENCES), Device(torch.device("cpu"), bf16=False)
    net = build_net(NetworkConfig("small", (4, 4, 4)), 1)
    assert used_case(net, own) is own  # the code of a new network is 0
    with torch.no_grad():
        net.presence.weight[:, [0, 1, 3]] = 0.1
    assert untrained_sequences(net.presence.weight) == (T2,)
    less = drop_sequences(own, frozenset({T2}))
    found, expected = (predict(net, case, cpu, mirror=True) for case in (own, less))
    assert np.array_equal(found.probability, expected.probability)
    assert found.markers == expected.markers
    alone = scanned(make_prepared, T2)
    assert used_case(net, alone) is alone
    with torch.no_grad():
        net.presence.weight[0, 2] = 1e-9
    assert used_case(net, own) is own


def test_external_cases_lose_each_sequence_and_others_as_many_as_can_be(make_prepared) -> None:
    own = scanned(make_prepared, T1, T2, FLAIR)
    assert [*dropped_sets(own, "external")] == [{T1}, {T2}, {FLAIR}]
    drawn = [*dropped_sets(own, "holdout")]
    assert [len(h) for h in drawn] == [1, 2]
    assert all(h < {T1, T2, FLAIR} for h in drawn)
    assert drawn == [*dropped_sets(own, "holdout")]
    alone = scanned(make_prepared, FLAIR)
    assert [*dropped_sets(alone, "external"), *dropped_sets(alone, "holdout")] == []


def test_every_sequence_is_drawn_for_some_case(make_prepared) -> None:
    own = scanned(make_prepared, *SEQUENCES)
    cases = [dataclasses.replace(own.case, id=f"c{n}") for n in range(60)]
    drawn = {next(iter(dropped_sets(dataclasses.replace(own, case=c), "holdout"))) for c in cases}
    assert drawn == {frozenset({s}) for s in SEQUENCES}


def answer(
    case: str, chance: float, mutant: bool, role="external", model="m", dice=0.8, had=SEQUENCES
):
    return CaseResult(
        model=model, seed=1, fold="f", role=role, case=case, site="s", patient=case,
        labels=Labels({"idh": "mutant" if mutant else "wildtype"}),
        probabilities={m.id: (1 - chance, chance) if len(m.classes) == 2 else (1 / 3,) * 3
                       for m in MARKERS},
        dice=dice, hd95_mm=None, volume_ml=None, volume_true_ml=None, sequences=frozenset(had),
    )  # fmt: skip


def test_a_loss_is_against_the_same_cases_as_they_were_scanned() -> None:
    whole = [answer(f"c{n}", 0.9 if n < 6 else 0.1, n < 6, dice=0.8) for n in range(12)]
    less = [
        answer(f"c{n}", 0.5, n < 6, model=f"m{WITHOUT}T2", dice=0.7, had={T1, FLAIR})
        for n in range(12)
        if n != 3  # which had no T2
    ]
    rows = {(r.task, r.metric): r for r in ablation_scores(whole, less, "m", 100)}
    assert rows["mask", "dice"].n == 11
    assert rows["mask", "dice"].difference == pytest.approx(-0.1)
    assert rows["idh", "auc"].value == pytest.approx(0.5)
    assert rows["idh", "auc"].difference == pytest.approx(-0.5)
    assert {r.model for r in rows.values()} == {"m without T2"}
    assert ablation_scores(whole, [], "m", 100) == ()


def test_calibrations_are_by_how_many_are_missing_beyond_the_usual() -> None:
    rng = np.random.default_rng(3)
    held, hidden = [], []
    for n in range(80):
        mutant = bool(n % 2)
        sure = float(np.clip(0.5 + (0.35 if mutant else -0.35) + rng.normal(0, 0.2), 0.02, 0.98))
        vague = float(
            np.clip(
                0.5 + (0.45 if rng.random() < 0.6 else -0.45) * (1 if mutant else -1), 0.02, 0.98
            )
        )
        held.append(answer(f"c{n}", sure, mutant, "holdout", had={T1, T1CE, FLAIR}))
        hidden += [
            answer(f"c{n}", vague, mutant, "holdout", f"m{WITHOUT}{s}", had=had)
            for s, had in (("T1", {T1CE, FLAIR}), ("T1+FLAIR", {T1CE}))
        ]
    natural = fit_calibration(
        local_exchange({"s": CalibrationCases(tuple(held))}), CalibrationConfig()
    )
    found = calibrations_by_missing(natural, held, hidden)
    assert list(found) == [1, 2, 3]
    assert found[1] is natural
    assert found[2].scalings["idh"].slope < natural.scalings["idh"].slope / 2  # less sure
    assert found[2].sets["idh"].at_least < natural.sets["idh"].at_least  # wider sets
    few = [r for r in hidden if len(r.sequences) == 3]
    assert list(calibrations_by_missing(natural, held, few)) == [1]
