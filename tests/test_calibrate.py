"""Calibration by sums is that of the pooled cases, and says so where there is none."""

import functools
import itertools
import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logit, softmax
from sklearn.linear_model import LogisticRegression

from gliofed.calibration.calibrator import (
    apply_to_case,
    calibrated_result,
    coverage_by_site,
    fit_calibration,
)
from gliofed.calibration.conformal import fit_prediction_sets, set_coverage, true_class_counts
from gliofed.calibration.files import calibration_json, parse_calibration
from gliofed.calibration.probability_bins import BINS, EDGES, bin_indices
from gliofed.calibration.scaling import LEAST, RIDGE, FitPosition, scaling_steps, scaling_sums
from gliofed.calibration.selective import (
    ConfidentPredictions,
    area_under_risk_coverage,
    confidence_counts,
    fit_confidence_threshold,
    risk_at_coverage,
    selective_risk_rows,
)
from gliofed.calibration.site_statistics import (
    CalibrationCases,
    joint_decisions,
    local_exchange,
    model_probabilities,
)
from gliofed.calibration.statistics import StatisticsRequest
from gliofed.errors import DataError
from gliofed.evaluation.intervals.analytic import wilson_bounds
from gliofed.evaluation.intervals.bootstrap import unit_weights
from gliofed.evaluation.logistic_regression import fit_side_by_side
from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS
from gliofed.study import CalibrationConfig
from gliofed.types import Labels

COUNT = StatisticsRequest("count")
MARKER = {2: "idh", 3: "grade"}


def made_up(n, classes, seed=0, sharp=3.0, shift=0.0):
    """Truth drawn from honest probabilities, and an over-confident model's version of them."""
    rng = np.random.default_rng(seed)
    honest = softmax(rng.normal(size=(n, classes)) * 1.2, axis=1)
    truth = (honest.cumsum(1) < rng.random((n, 1))).sum(1)
    scores = sharp * np.log(honest)
    scores[:, -1] += shift
    return truth, softmax(scores, axis=1), honest


def scaled_by_sites(parts, kind, marker):
    classes = parts[0][1].shape[1]
    counts = {f"s{i}": tuple(np.bincount(t, minlength=classes)) for i, (t, _) in enumerate(parts)}

    def ask(places):
        each = [scaling_sums(places[marker], *p) for p in parts]
        return {marker: functools.reduce(lambda a, b: a + b, each)}

    return fit_side_by_side({marker: scaling_steps(marker, kind, counts)}, ask)[marker]


def ece(truth, probabilities, bins=15):
    sure, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((sure * bins).astype(int), bins - 1)
    return sum(
        abs((sure - right)[place == b].mean()) * (place == b).mean() for b in np.unique(place)
    )


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["temperature", "platt"])
def test_sites_scale_as_the_pooled_cases_and_as_a_plain_minimum(classes, kind) -> None:
    truth, found, _ = made_up(220, classes, shift=1.0)
    cuts = ((0, 3), (3, 80), (80, 220), (220, 220))
    parts = [(truth[a:b], found[a:b]) for a, b in cuts]
    own = scaled_by_sites(parts, kind, MARKER[classes])
    pooled = scaled_by_sites([(truth, found)], kind, MARKER[classes])
    assert own.n == 220
    assert own.sites == ("s0", "s1", "s2")
    assert own.kind == kind
    assert own.slope == pytest.approx(pooled.slope, abs=1e-9)
    assert own.intercepts == pytest.approx(pooled.intercepts, abs=1e-9)

    def loss(v):
        shifts = np.r_[0, v[1:]] if kind == "platt" else 0
        scores = log_softmax(v[0] * np.log(np.maximum(found, LEAST)) + shifts, axis=1)
        pull = (v[0] - 1) ** 2 + (v[1:] ** 2).sum()
        return -scores[np.arange(220), truth].sum() + RIDGE * pull / 2

    start = np.r_[1, np.zeros(classes - 1 if kind == "platt" else 0)]
    best = minimize(loss, start, method="BFGS", options={"gtol": 1e-9}).x
    assert own.slope == pytest.approx(best[0], abs=1e-5)
    assert own.slope == pytest.approx(1 / 3, abs=0.15)
    if kind == "platt":
        assert own.intercepts[1:] == pytest.approx(best[1:], abs=1e-5)
    assert own.apply(found).sum(1) == pytest.approx(np.ones(220), abs=1e-12)


def test_platt_scaling_is_logistic_regression_on_the_logit() -> None:
    truth, found, _ = made_up(4000, 2, shift=0.7)
    own = scaled_by_sites([(truth, found)], "platt", "idh")
    peer = LogisticRegression(C=1e9, tol=1e-10).fit(logit(found[:, 1:]), truth)
    # the ridge of 1 has no weight beside 4000 cases
    assert own.slope == pytest.approx(peer.coef_[0, 0], abs=2e-3)
    assert own.intercepts[1] == pytest.approx(peer.intercept_[0], abs=2e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_gradient_and_curve_of_a_site_are_those_of_its_loss(classes) -> None:
    truth, found, _ = made_up(25, classes)
    place = np.random.default_rng(1).normal(size=classes)

    def at(coefficients):
        return scaling_sums(FitPosition("platt", tuple(coefficients)), truth, found)

    own = at(place)
    for step, axis in zip(np.eye(classes) * 1e-5, range(classes), strict=True):
        ahead, back = at(place + step), at(place - step)
        assert (ahead.loss - back.loss) / 2e-5 == pytest.approx(own.gradient[axis], abs=1e-5)
        assert (ahead.gradient - back.gradient) / 2e-5 == pytest.approx(own.hessian[axis], abs=1e-5)


def test_certain_probabilities_and_separated_classes_are_scaled_to_something_sane() -> None:
    truth = np.array([0, 0, 1, 1, 1])
    found = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0.0]])
    own = scaled_by_sites([(truth, found)], "platt", "idh")
    again = own.apply(found)
    assert np.isfinite(again).all()
    assert 0.5 < again[2, 1] < 1
    apart = scaled_by_sites([(truth, np.eye(2)[truth] * 0.2 + 0.4)], "platt", "idh")
    assert 1 < apart.slope < 3
    assert apart.kind == "platt"
    assert np.isnan(own.apply(np.array([[np.nan, 0.5]]))).any()


@pytest.mark.parametrize(
    ("truth", "found", "why"),
    [
        ([], np.zeros((0, 2)), "no case with a known label"),
        ([1, 1], [[0.4, 0.6], [0.1, 0.9]], "only mutant"),
        ([0, 1] * 20, [[0.1, 0.9], [0.9, 0.1]] * 20, "no better than chance"),
    ],
)
def test_where_nothing_can_be_fitted_probabilities_stay_and_the_reason_is_said(
    truth, found, why
) -> None:
    found = np.array(found)
    own = scaled_by_sites([(np.array(truth, int), found)], "platt", "idh")
    assert own.kind == "identity"
    assert why in own.note
    assert own.n == len(truth)
    assert own.apply(found).tolist() == found.tolist()


def test_a_class_without_a_case_gets_no_intercept() -> None:
    truth, found, _ = made_up(100, 3)
    kept = truth != 1
    own = scaled_by_sites([(truth[kept], found[kept])], "platt", "grade")
    assert own.kind == "temperature"
    assert "no 3 among" in own.note
    assert own.intercepts == (0, 0, 0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["temperature", "platt"])
def test_scaling_makes_an_over_confident_model_honest(kind, classes) -> None:
    truth, found, honest = made_up(1500, classes)
    own = scaled_by_sites([(truth[:300], found[:300])], kind, MARKER[classes])
    fresh, right = found[300:], truth[300:]
    assert ece(right, fresh) > 0.1
    assert ece(right, own.apply(fresh)) < 0.05
    assert np.abs(own.apply(fresh) - honest[300:]).mean() < 0.05


def test_bins_hold_their_lower_edge() -> None:
    assert bin_indices(EDGES[:-1]).tolist() == list(range(BINS))
    assert bin_indices(np.nextafter(EDGES[1:], 0)).tolist() == list(range(BINS))
    assert bin_indices(np.array([1.0, 1.0000001, -1e-9])).tolist() == [BINS - 1, BINS - 1, 0]


def exact_threshold(probabilities_of_truth, alpha):
    n = len(probabilities_of_truth)
    rank = int(np.ceil(round((n + 1) * (1 - alpha), 9)))
    return np.sort(probabilities_of_truth)[::-1][rank - 1] if rank <= n else 0.0


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_from_counts_are_below_the_pooled_ones_by_less_than_a_bin(by_class, seed):
    truth, found, _ = made_up(150, 3, seed)
    parts = [(truth[a:b], found[a:b]) for a, b in ((0, 20), (20, 21), (21, 150))]
    own = fit_prediction_sets("grade", sum(true_class_counts(*p) for p in parts), 0.1, by_class)
    score = found[np.arange(150), truth]
    for c in range(3):
        exact = exact_threshold(score[truth == c] if by_class else score, 0.1)
        assert 0 <= exact - own.at_least[c] < 1 / BINS
    assert own.n == tuple(np.bincount(truth))


def test_the_threshold_is_that_of_the_finite_sample_quantile() -> None:
    truth = np.zeros(9, int)
    found = np.column_stack([np.arange(1, 10) / 10 + 0.001, np.zeros(9)])
    nine = fit_prediction_sets("idh", true_class_counts(truth, found), 0.1, by_class=False)
    assert nine.at_least == (0.1, 0.1)  # rank 9 of 9
    eight = fit_prediction_sets("idh", true_class_counts(truth[1:], found[1:]), 0.1, by_class=False)
    assert eight.at_least == (0, 0)  # rank 9 of 8
    assert "wildtype, mutant" in eight.note
    assert nine.note == ""
    half = fit_prediction_sets("idh", true_class_counts(truth, found), 0.5, by_class=True)
    assert half.at_least == (0.5, 0)  # rank 5 of 9; no mutant to calibrate on
    assert "mutant" in half.note
    assert half.sets(np.array([[0.5, 0.5], [0.49, 0.51], [np.nan, np.nan]])).tolist() == [
        [True, True],
        [False, True],
        [True, True],
    ]
    for alpha in (0, 1):
        with pytest.raises(ValueError, match="alpha"):
            fit_prediction_sets("idh", true_class_counts(truth, found), alpha, by_class=True)


@pytest.mark.parametrize("by_class", [False, True])
def test_sets_hold_nine_of_ten_of_exchangeable_cases_and_fewer_of_a_shifted_site(by_class) -> None:
    truth, found, _ = made_up(6000, 3)
    own = fit_prediction_sets("grade", true_class_counts(truth[:2000], found[:2000]), 0.1, by_class)
    like = set_coverage(own.sets(found[2000:]), truth[2000:])
    assert 0.87 <= like.value <= 0.93
    assert like.low < like.value < like.high
    if by_class:
        for c in range(3):
            some = truth[2000:] == c
            value = set_coverage(own.sets(found[2000:][some]), truth[2000:][some]).value
            assert 0.87 <= value <= 0.93
    # another scanner: the same patients, a less informed model
    elsewhere = softmax(np.log(found) + np.random.default_rng(5).normal(size=found.shape) * 6, 1)
    away = set_coverage(own.sets(elsewhere), truth)
    assert away.high < 0.87


def test_coverage_counts_what_is_in_the_sets() -> None:
    sets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool)
    own = set_coverage(sets, np.array([0, 0, 1, 1]))
    assert (own.n, own.covered, own.value, own.size) == (4, 2, 0.5, 1.0)
    assert (own.empty, own.single) == (1, 2)
    assert (own.low, own.high) == pytest.approx((0.1500, 0.8500), abs=1e-4)
    none = set_coverage(sets[:0], np.zeros(0, int))
    assert (none.n, none.value, none.low, none.size) == (0, None, None, None)
    assert wilson_bounds(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)  # Newcombe 1998's formula


def naive_risks(confidence, wrong):
    """Risk at 1, 2, ... cases kept, averaged over every order of equal confidences."""
    n = len(confidence)
    orders = [
        o for o in itertools.permutations(range(n))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(o))
    ]  # fmt: skip
    return np.mean([np.cumsum(wrong[list(o)]) / np.arange(1, n + 1) for o in orders], axis=0)


def test_risk_curve_against_every_order_of_ties() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.7, 0.6, 0.6])
    wrong = np.array([False, True, False, True, True, False])
    risks = naive_risks(confidence, wrong)
    assert area_under_risk_coverage(confidence, wrong, unit_weights(6))[0] == pytest.approx(
        risks.mean()
    )
    for kept in range(1, 7):
        assert risk_at_coverage(confidence, wrong, unit_weights(6), kept / 6)[0] == pytest.approx(
            risks[kept - 1]
        )
    assert risk_at_coverage(confidence, wrong, unit_weights(6), 0.7)[0] == pytest.approx(
        risks[4]
    )  # 4.2 is 5
    twice = np.array([[2, 0, 1, 1, 1, 1]])
    again = np.repeat(np.arange(6), twice[0])
    assert area_under_risk_coverage(confidence, wrong, twice)[0] == pytest.approx(
        naive_risks(confidence[again], wrong[again]).mean()
    )
    assert np.isnan(area_under_risk_coverage(confidence[:0], wrong[:0], unit_weights(0))[0])
    assert (
        risk_at_coverage(np.array([np.nan, 0.1]), np.array([True, False]), unit_weights(2), 0.5)[0]
        == 0
    )


def test_risks_have_n_and_an_interval_or_a_reason() -> None:
    truth, found, _ = made_up(120, 2)
    sure, wrong = found.max(1), found.argmax(1) != truth
    cases = [(f"p{i}", f"c{i}") for i in range(120)]
    whole, *_, area = own = selective_risk_rows(
        "m", "idh", ConfidentPredictions(cases, sure, wrong), 200
    )
    assert [f.coverage for f in own] == [1.0, 0.9, 0.8, 0.7, None]
    assert whole.value == pytest.approx(wrong.mean())
    assert area.value < whole.value
    assert all(f.low < f.value < f.high for f in own)
    lone = selective_risk_rows(
        "m", "idh", ConfidentPredictions([("p", "c")] * 2, sure[:2], wrong[:2]), 50
    )
    assert {(f.note, f.n) for f in lone} == {("one patient", 1)}
    none = selective_risk_rows("m", "idh", ConfidentPredictions([], sure[:0], wrong[:0]), 50)
    assert all(f.value is None and f.note for f in none)


def test_a_limit_keeps_most_cases_at_the_wished_risk() -> None:
    confidence = np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.6])
    wrong = np.array([False, False, False, True, False, True])
    parts = [confidence_counts(confidence[a:b], wrong[a:b]) for a, b in ((0, 1), (1, 6))]
    own = fit_confidence_threshold("idh", sum(parts), 0.2)
    assert (own.at_least, own.n, own.n_kept, own.n_errors) == (0.605, 6, 5, 1)
    assert (own.low, own.high) == pytest.approx(wilson_bounds(1, 5))
    assert own.accepts(np.array([0.605, 0.6049, np.nan])).tolist() == [True, False, False]
    strict = fit_confidence_threshold("idh", sum(parts), 0.19)
    assert (strict.at_least, strict.n_kept, strict.n_errors) == (0.805, 3, 0)
    assert fit_confidence_threshold("idh", sum(parts), 1.0).at_least == 0
    never = fit_confidence_threshold("idh", confidence_counts(confidence, ~np.zeros(6, bool)), 0.5)
    assert never.at_least is None
    assert never.note
    assert not never.accepts(confidence).any()
    assert fit_confidence_threshold("idh", np.zeros((2, BINS), int), 0.1).note == "no case"


def answers(n, site, seed, sharp=3.0):
    rng = np.random.default_rng(seed)
    out = []
    drawn = {m.id: made_up(n, len(m.classes), [seed, i], sharp) for i, m in enumerate(MARKERS)}
    for row in range(n):
        labels = {m.id: m.classes[drawn[m.id][0][row]] for m in MARKERS if rng.random() < 0.8}
        out.append(
            CaseResult(
                model="federated", seed=0, fold="f", role="holdout", case=f"{site}{row}",
                site=site, patient=f"{site}{row}", labels=Labels(labels),
                probabilities={m.id: tuple(drawn[m.id][1][row].tolist()) for m in MARKERS},
                dice=None, hd95_mm=None, volume_ml=None, volume_true_ml=None,
            )
        )  # fmt: skip
    return tuple(out)


def test_a_calibration_of_sites_is_that_of_all_cases_at_one_and_reads_back() -> None:
    parts = {"a": answers(120, "a", 1), "b": answers(60, "b", 2), "c": ()}
    sites = {k: CalibrationCases(v) for k, v in parts.items()}
    own = fit_calibration(local_exchange(sites), CalibrationConfig())
    pooled = fit_calibration(
        local_exchange({"all": CalibrationCases(parts["a"] + parts["b"])}), CalibrationConfig()
    )
    assert own.sets == pooled.sets
    assert own.cells == pooled.cells
    for marker in own.scalings:
        assert own.scalings[marker].kind == "platt"
        assert own.scalings[marker].slope == pytest.approx(pooled.scalings[marker].slope, abs=1e-9)
        assert own.thresholds[marker].n_kept == pytest.approx(
            pooled.thresholds[marker].n_kept, abs=0
        )
    assert parse_calibration(calibration_json(own), "x") == own
    one = parts["a"][0]
    told = apply_to_case(own, one.probabilities)
    assert calibrated_result(own, one).probabilities == told.probabilities
    together, _ = joint_decisions(own.scalings, own.cells, model_probabilities(parts["a"]))
    assert told.probabilities["idh"] == pytest.approx(together["idh"][0], abs=1e-12)
    for marker in MARKERS:
        assert sum(told.probabilities[marker.id]) == pytest.approx(1, abs=1e-9)
    found = coverage_by_site(own, "mgmt", {"a": sites["a"], "c": sites["c"]})
    assert found["a"].value > 0.85
    assert (found["c"].n, found["c"].value) == (0, None)


def test_coverage_at_a_site_unlike_the_others_is_told_as_it_is() -> None:
    sites = {
        "a": CalibrationCases(answers(400, "a", 1)),
        "b": CalibrationCases(answers(400, "b", 2)),
    }
    own = fit_calibration(local_exchange(sites), CalibrationConfig(by_class=False))
    noise = np.random.default_rng(0).normal(size=(500, 3)) * 6
    odd = []
    for case, shift in zip(answers(500, "c", 3), noise, strict=True):
        moved = softmax(np.log(case.probabilities["grade"]) + shift)
        probabilities = {**case.probabilities, "grade": tuple(moved.tolist())}
        odd.append(CaseResult(**{**case.__dict__, "probabilities": probabilities}))
    tested = {"like": CalibrationCases(answers(500, "d", 4)), "odd": CalibrationCases(tuple(odd))}
    found = coverage_by_site(own, "grade", tested)
    assert 0.87 <= found["like"].value <= 0.93
    assert found["like"].n == sum(tested["like"].respond(COUNT).classes("grade"))
    assert found["odd"].high < 0.9


def test_no_case_at_all_and_probabilities_that_are_no_numbers() -> None:
    own = fit_calibration(local_exchange({}), CalibrationConfig())
    assert {s.kind for s in own.scalings.values()} == {"identity"}
    told = apply_to_case(own, answers(1, "a", 1)[0].probabilities)
    assert told.sets["grade"] == ("2", "3", "4")
    assert not any(told.accepted.values())
    assert told.integrated_type.answer == "not determinable"
    cases = answers(40, "a", 3)
    spoilt = cases[0].probabilities | {"grade": (float("nan"),) * 3}
    bad = CaseResult(**{**cases[0].__dict__, "probabilities": spoilt,
                        "labels": Labels({"grade": "2"}), "case": "bad"})  # fmt: skip
    own = fit_calibration(
        local_exchange({"a": CalibrationCases((*cases, bad))}), CalibrationConfig()
    )
    assert "1 cases excluded" in own.notes["grade"]
    assert own.notes["idh"] == ""
    told = apply_to_case(own, spoilt)
    assert told.integrated_type.probabilities is None
    assert sum(told.probabilities["idh"]) == pytest.approx(1)
    assert told.accepted["grade"] is False
    assert told.sets["grade"] == ("2", "3", "4")


def test_a_site_with_few_cases_of_a_class_is_left_out_and_named() -> None:
    cases = answers(30, "a", 4)
    least = min(n for n in CalibrationCases(cases).respond(COUNT).classes("codel_1p19q"))
    shows, hides = (CalibrationCases(cases, least + extra) for extra in (0, 1))
    assert not shows.suppressed("codel_1p19q")
    assert hides.suppressed("codel_1p19q")
    assert hides.respond(COUNT).classes("codel_1p19q") == (0, 0)
    own = fit_calibration(local_exchange({"a": hides}), CalibrationConfig())
    assert "without a" in own.notes["codel_1p19q"]
    assert own.scalings["codel_1p19q"].kind == "identity"
    assert own.cells is None


def test_answers_of_two_models_are_refused() -> None:
    cases = answers(2, "a", 1)
    other = CaseResult(**{**cases[1].__dict__, "model": "pooled"})
    with pytest.raises(ValueError, match="2 models"):
        local_exchange({"a": CalibrationCases((cases[0], other))})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw["scalings"]["idh"].update(slope=0),
        lambda raw: raw["scalings"]["idh"].update(slope="1"),
        lambda raw: raw["scalings"]["idh"].update(kind="magic"),
        lambda raw: raw["scalings"].pop("idh"),
        lambda raw: raw["sets"]["grade"].update(at_least=[0, 0]),
        lambda raw: raw["limits"]["idh"].update(at_least=2),
        lambda raw: raw.update(cells=[[[1]]]),
        lambda raw: raw["wishes"].update(more=1),
    ],
)
def test_a_spoilt_calibration_is_refused(spoil) -> None:
    plain = json.loads(
        calibration_json(
            fit_calibration(
                local_exchange({"a": CalibrationCases(answers(60, "a", 5))}), CalibrationConfig()
            )
        )
    )
    parse_calibration(json.dumps(plain), "x")
    spoil(plain)
    with pytest.raises(DataError, match="x: not a calibration"):
        parse_calibration(json.dumps(plain), "x")
