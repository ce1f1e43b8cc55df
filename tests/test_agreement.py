"""Whether models that agree on an outline are right: from made-up cases, against plain sums."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_answers import answer
from scipy.stats import spearmanr

from gliofed.calibration.model_agreement import agreement_rows
from gliofed.data.splits import Split
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.metrics.segmentation import dice
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.experiments.model_runs import ModelRun, TrainedModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.experiments.seed_agreement import add_seed_agreement
from gliofed.experiments.train_and_test import test_model as predict_test_set
from gliofed.federated.checkpoint import CommittedRound
from gliofed.inference.forward import predict
from gliofed.inference.native_grid import THRESHOLD
from gliofed.models.network import build_net
from gliofed.reporting.study.calibration_tables import agreement_lines
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import FEDERATED, DataConfig, NetworkConfig, Study


def outlines(n, follows, seed=0, seeds=(1,)):
    """Cases whose Dice follows the agreement as closely as said, on average over seeds."""
    rng = np.random.default_rng(seed)
    agreed = rng.uniform(0.3, 1, n)
    dices = np.clip(follows * agreed + (1 - follows) * rng.uniform(0.3, 1, n), 0, 1)
    return [
        answer(i, run and {}, seed=run, dice=float(d), agreement=float(a))
        for run in seeds
        for i, (a, d) in enumerate(zip(agreed, dices, strict=True))
    ]


def test_keeping_what_agrees_keeps_the_better_outlines() -> None:
    results = outlines(60, 0.8)
    rows = {r.coverage: r for r in agreement_rows(results, "federated", 300)}
    agreed = np.array([r.agreement for r in results])
    dices = np.array([r.dice for r in results])
    for share in (1.0, 0.9, 0.8, 0.7):
        best = np.argsort(-agreed)[: int(np.ceil(share * 60))]
        assert rows[share].value == pytest.approx(dices[best].mean(), abs=1e-12)
        assert rows[share].low < rows[share].value < rows[share].high
        assert rows[share].n == 60
    assert rows[0.7].value > rows[1.0].value
    assert rows[None].value == pytest.approx(spearmanr(agreed, dices).statistic)
    assert rows[None].low > 0.8


def test_agreement_that_tells_nothing_has_an_interval_about_0() -> None:
    """Nineteen intervals of twenty, for a rank correlation of 0 and for a strong one."""
    truth = spearmanr(*np.array([(r.agreement, r.dice) for r in outlines(20000, 0.5)]).T).statistic
    for follows, value in ((0.0, 0.0), (0.5, truth)):
        held = 0
        for seed in range(200):
            row = agreement_rows(outlines(40, follows, seed + 1), "federated", 0)[-1]
            held += row.low <= value <= row.high
        assert 0.91 <= held / 200 <= 0.985


def test_seeds_are_one_case_each_and_other_answers_do_not_count() -> None:
    one, two = outlines(20, 0.8), outlines(20, 0.8, seeds=(1, 2))
    assert [r.n for r in agreement_rows(two, "federated", 50)] == [20] * 5
    assert agreement_rows(two, "federated", 50)[-1] == agreement_rows(one, "federated", 50)[-1]
    others = [
        dataclasses.replace(one[0], role="holdout", dice=0.0),
        dataclasses.replace(one[0], case="x", agreement=None),
        dataclasses.replace(one[0], case="y", dice=None),
        dataclasses.replace(one[0], model="pooled", dice=0.0),
    ]
    assert agreement_rows([*one, *others], "federated", 50) == agreement_rows(one, "federated", 50)
    assert agreement_rows(others, "federated", 50) == ()


def test_few_cases_and_equal_ones_have_a_reason_in_place_of_a_figure() -> None:
    rows = agreement_rows(outlines(4, 0.8), "federated", 50)
    assert (rows[-1].value, rows[-1].note) == (None, "4 cases, 5 are needed")
    same = [dataclasses.replace(r, dice=0.8) for r in outlines(9, 0.8)]
    assert agreement_rows(same, "federated", 50)[-1].note == "the cases do not differ"
    lone = [dataclasses.replace(r, patient="one") for r in outlines(9, 0.8)]
    assert {r.note for r in agreement_rows(lone, "federated", 50)} == {
        "one patient", "no interval: patients with several cases",
    }  # fmt: skip
    perfect = [dataclasses.replace(r, dice=r.agreement) for r in outlines(9, 1.0)]
    row = agreement_rows(perfect, "federated", 50)[-1]
    assert row.value == pytest.approx(1)
    assert row.low is None


def test_it_is_written_read_and_said() -> None:
    results = outlines(12, 0.5)
    again = parse_predictions(predictions_csv(results), "x.csv")
    assert [r.agreement for r in again] == [r.agreement for r in results]
    lines = agreement_lines(agreement_rows(again, "federated", 50))
    assert lines[0].what == "mean of the 100 % that agree most"
    assert lines[-1].what == "rank correlation with the agreement"
    assert all(line.n == "12" for line in lines)


# ---- in a run


def seeds_of(make_prepared, out, seeds, cases=2):
    """Networks that no one trained, one a seed, and the cases that they are tested on."""
    study = Study("x", DataConfig(Path(), ("here",), ("there",)), seeds=tuple(seeds))
    prepared = {f"there/{n}": make_prepared(str(n), site="there") for n in range(cases)}
    outside = tuple(p.case for p in prepared.values())
    trained = []
    for seed in seeds:
        split = Split("external", {}, {}, outside, ())
        weights = build_net(NetworkConfig("small"), seed).state_dict()
        run = ModelRun(FEDERATED, seed, split, {})
        trained.append(TrainedModelRun(run, CommittedRound("run", 1, weights, ())))
    machine = Device(torch.device("cpu"), bf16=False)
    return RunContext(study, out, machine, prepared), trained


def told(model, seed, name, role="external"):
    return answer(0, model=model, seed=seed, case=name, site="there", role=role, dice=0.5)


def test_agreement_is_the_dice_between_the_masks_of_the_seeds(make_prepared, tmp_path) -> None:
    context, trained = seeds_of(make_prepared, tmp_path, (1, 2))
    for model in trained:
        predict_test_set(context, model)
    results = [told(FEDERATED, s, str(n)) for s in (1, 2) for n in range(2)]
    others = [told("pooled", 1, "0"), told(FEDERATED, 1, "0", "holdout")]

    def agreement():
        return add_seed_agreement(context, trained, [*results, *others], NO_PROGRESS)

    found = agreement()
    maps = {}
    for model in trained:
        net = build_net(NetworkConfig("small"), 0)
        net.load_state_dict(dict(model.state.weights))
        for name, scan in context.prepared.items():
            prediction = predict(net, scan, context.machine, context.study.score.mirror)
            maps[model.run.seed, name] = prediction.probability >= THRESHOLD
    for r in found[:4]:
        one, two = (maps[s, f"there/{r.case}"] for s in (1, 2))
        assert r.agreement == pytest.approx(dice(one, two), abs=1e-12)
    assert [r.agreement for r in found[4:]] == [None, None]
    (kept,) = (tmp_path / "models").glob("agreement-external-*.json")
    kept.write_text(json.dumps({"there/0": 0.25, "there/1": None}))
    assert [r.agreement for r in agreement()[:4]] == [0.25, None] * 2  # read, not found anew


def test_models_of_one_seed_agree_with_nobody(make_prepared, tmp_path) -> None:
    context, trained = seeds_of(make_prepared, tmp_path, (1,))
    results = [told(FEDERATED, 1, "0")]
    found = add_seed_agreement(context, trained, results, NO_PROGRESS)
    assert found == results
    assert not (tmp_path / "models").exists()
