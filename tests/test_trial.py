"""What a calibration does on external cases: fitted on held-out ones alone, seed by seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_up_answers import EVEN, answer
from scipy.special import softmax

from gliofed.calibration.cns5 import GLIOBLASTOMA, NOT_DETERMINABLE
from gliofed.calibration.evaluation import (
    ALL_GROUPS,
    CALIBRATED_SUFFIX,
    INTEGRATED_TYPE,
    NO_HOLDOUT,
    evaluate_calibration,
)
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.markers import BY_ID, MARKERS
from gliofed.study import CalibrationConfig

SHARP = 3.0
POSSIBLE = {("mutant", "2"), ("mutant", "3")}
"""IDH and grade of tumours with co-deletion."""


def drawn(rng, marker, scores, mixed):
    """A class, by honest probabilities: `mixed` of them, the rest a coin."""
    honest = softmax(scores) * mixed + (1 - mixed) / len(scores)
    return marker.classes[rng.choice(len(scores), p=honest)]


def patients(n, role, site, seed=0, model="federated", run=1, sharp=SHARP, mixed=1.0, fold="one"):
    """Cases whose truth is drawn from honest probabilities, without impossible pairs, and a model
    that is too sure of them."""
    rng = np.random.default_rng([seed, len(site), n])
    out = []
    for i in range(n):
        scores = {m.id: rng.normal(size=len(m.classes)) * 1.2 for m in MARKERS}
        while True:
            labels = {m.id: drawn(rng, m, scores[m.id], mixed) for m in MARKERS}
            if labels["codel_1p19q"] == "intact" or (labels["idh"], labels["grade"]) in POSSIBLE:
                break
        chances = {m: tuple(softmax(s * sharp).tolist()) for m, s in scores.items()}
        out.append(
            answer(i, labels, model, run, probabilities=chances, role=role, site=site, fold=fold,
                   case=f"{role}-{i}", patient=f"{site}-{role}-{i}")
        )  # fmt: skip
    return out


def figure(rows, model, marker, metric):
    return next(r for r in rows if (r.model, r.role, r.site, r.task, r.metric)
                == (model, "external", ALL_GROUPS, marker, metric))  # fmt: skip


def pick(rows, **wanted):
    found = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def exchangeable():
    held = [r for s in ("a", "bb") for r in patients(700, "holdout", s)]
    return evaluate_calibration(
        [*held, *patients(900, "external", "ccc")], "federated", CalibrationConfig(), 200
    )


def test_sets_keep_their_promise_on_exchangeable_cases(exchangeable) -> None:
    for marker in MARKERS:
        for label in (ALL_GROUPS, *marker.classes):
            row = pick(exchangeable.sets, site="ccc", marker=marker.id, label=label)
            assert row.value == pytest.approx(0.9, abs=0.03 if label == ALL_GROUPS else 0.045), row
            assert row.low < row.value < row.high
            assert row.target_coverage == pytest.approx(0.9)


@pytest.mark.slow
def test_sets_at_a_hospital_unlike_the_others_are_shown_as_they_are() -> None:
    """Where the truth is a coin, sets that hold nine of ten elsewhere hold fewer."""
    held = patients(900, "holdout", "a")
    odd = patients(600, "external", "odd", mixed=0.0)
    tried = evaluate_calibration(
        [*held, *odd, *patients(600, "external", "like")], "federated", CalibrationConfig(), 100
    )
    at = {
        s: pick(tried.sets, site=s, marker="idh", label=ALL_GROUPS)
        for s in ("odd", "like", ALL_GROUPS)
    }
    assert at["odd"].high < 0.87
    assert at["like"].value == pytest.approx(0.9, abs=0.03)
    assert at[ALL_GROUPS].value == pytest.approx((at["odd"].value + at["like"].value) / 2, abs=1e-9)


@pytest.mark.slow
def test_calibrated_answers_have_a_smaller_calibration_error(exchangeable) -> None:
    before = patients(900, "external", "ccc")
    rows = score_table([*before, *exchangeable.results], 200)
    for marker in BY_ID:
        raw = figure(rows, "federated", marker, "calibration_error")
        now = figure(rows, "federated" + CALIBRATED_SUFFIX, marker, "calibration_error")
        assert raw.value > 0.12
        assert now.value < 0.07
        assert figure(rows, "federated" + CALIBRATED_SUFFIX, marker, "brier").difference_high < 0


def test_each_seed_and_fold_is_calibrated_on_its_own_held_out_cases() -> None:
    """A second seed that is not too sure gets another slope; where its cases come from other
    sites, the calibration is the same to rounding."""
    one = patients(300, "holdout", "a")
    two = patients(300, "holdout", "a", run=2, sharp=1.0)
    test = [r for run, sharp in ((1, SHARP), (2, 1.0))
            for r in patients(50, "external", "ccc", run=run, sharp=sharp)]  # fmt: skip
    whole = evaluate_calibration([*one, *two, *test], "federated", CalibrationConfig(), 100)
    slopes = [pick(whole.scalings, seed=s, marker="idh").slope for s in (1, 2)]
    assert slopes == pytest.approx([1 / 3, 1.0], abs=0.15)
    split = [dataclasses.replace(r, site=f"s{i % 3}") for i, r in enumerate(one)]
    again = evaluate_calibration([*split, *two, *test], "federated", CalibrationConfig(), 100)
    for a, b in zip(whole.scalings, again.scalings, strict=True):
        assert a.slope == pytest.approx(b.slope, abs=1e-9)
        assert a.at_least == b.at_least
    # both seeds answer each case: n counts it once
    assert pick(whole.sets, site=ALL_GROUPS, marker="idh", label=ALL_GROUPS).n == 50


def test_calibrated_answers_come_in_the_order_of_the_models_own() -> None:
    """However folds and seeds are ordered, so that a score table pairs the two."""
    held = [
        r for s in (2, 1) for f in ("z", "b") for r in patients(40, "holdout", "a", run=s, fold=f)
    ]  # fmt: skip
    test = [
        r for s, f in ((2, "z"), (1, "b"), (1, "z"), (2, "b"))
        for r in patients(20, "external", f"of-{f}", run=s, fold=f)
    ]  # fmt: skip
    tried = evaluate_calibration([*held, *test], "federated", CalibrationConfig(), 100)
    key = [(r.seed, r.fold, r.site, r.case) for r in test]
    assert [(r.seed, r.fold, r.site, r.case) for r in tried.results] == key
    rows = score_table([*test, *tried.results], 100)
    assert figure(rows, "federated" + CALIBRATED_SUFFIX, "idh", "brier").difference is not None


def test_no_external_label_enters_a_calibration(exchangeable) -> None:
    held = [r for s in ("a", "bb") for r in patients(700, "holdout", s)]
    other = patients(300, "external", "ccc", seed=5, mixed=0.0)
    assert (
        evaluate_calibration([*held, *other], "federated", CalibrationConfig(), 100).scalings
        == exchangeable.scalings
    )


def test_keeping_back_costs_cases_and_saves_errors(exchangeable) -> None:
    for marker in BY_ID:
        all_of_them = pick(exchangeable.risks, marker=marker, coverage=1.0)
        surest = pick(exchangeable.risks, marker=marker, coverage=0.7)
        assert surest.value < all_of_them.value
        kept = pick(exchangeable.thresholds, marker=marker)
        assert 0 < kept.coverage < 1
        assert kept.error_rate < all_of_them.value
        assert kept.low < 0.1 + 0.03


def test_a_type_is_named_rightly_wrongly_or_not_at_all(exchangeable) -> None:
    named = pick(exchangeable.thresholds, marker=INTEGRATED_TYPE)
    assert named.target_risk is None
    assert 0 <= named.coverage < 1
    for reference in {r.reference for r in exchangeable.integrated_types}:
        own = [r for r in exchangeable.integrated_types if r.reference == reference]
        assert sum(r.share for r in own) == pytest.approx(1)
    assert (
        pick(exchangeable.integrated_types, reference=GLIOBLASTOMA, predicted=NOT_DETERMINABLE).n
        > 0
    )


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ([], NO_HOLDOUT),
        (patients(5, "external", "ccc"), NO_HOLDOUT),
        (patients(5, "holdout", "a"), "no external case was predicted"),
        (patients(5, "holdout", "a", model="pooled"), NO_HOLDOUT),
    ],
)
def test_nothing_to_fit_or_nothing_to_try_is_said(results, why) -> None:
    tried = evaluate_calibration(results, "federated", CalibrationConfig(), 100)
    assert tried.note == why
    assert tried.results == tried.sets == tried.thresholds == tried.integrated_types == ()


def test_single_classes_single_cases_and_nan_do_no_harm() -> None:
    """One held-out case, one class, unknown labels, a probability that is no number."""
    nan = {"idh": (float("nan"),) * 2}
    held = [answer(0, {"idh": "mutant"}, role="holdout", site="a")]
    test = [
        answer(1, {"idh": "mutant"}),
        answer(2, {"grade": "4"}),
        answer(3, {"idh": "wildtype"}, probabilities=nan),
    ]
    tried = evaluate_calibration([*held, *test], "federated", CalibrationConfig(), 100)
    fit = pick(tried.scalings, marker="idh")
    assert fit.kind == "identity"
    assert "only mutant" in fit.note
    row = pick(tried.sets, site=ALL_GROUPS, marker="idh", label=ALL_GROUPS)
    assert (row.n, row.value) == (1, 1.0)
    assert pick(tried.sets, site=ALL_GROUPS, marker="mgmt", label=ALL_GROUPS).note == "no case"
    assert pick(tried.thresholds, marker="mgmt").note == "no case"
    assert pick(tried.thresholds, marker="grade").note == "no prediction was accepted"
    assert tried.results[1].probabilities["mgmt"] == EVEN["mgmt"]
    assert np.isnan(tried.results[2].probabilities["idh"][0])
