"""Measures of markers and outlines beside independent ways to the same figure, and where none is."""

import dataclasses
import itertools
import math

import nibabel
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn
from sklearn.linear_model import LogisticRegression

from gliofed.data.splits import Split
from gliofed.data.store import PreparedCase
from gliofed.evaluation.by_case.marker_metrics import ALL_EQUAL, BY_WALD, MARKER_METRICS, SEPARATED
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.by_case.segmentation_metrics import (
    NO_LESIONS,
    NO_MASK,
    NO_SURFACE,
    SEGMENTATION_METRICS,
)
from gliofed.evaluation.by_site_sums.sums import auc_sums
from gliofed.evaluation.intervals.analytic import BY_DELONG, BY_SCORE, auc_interval, wilson_bounds
from gliofed.evaluation.intervals.bootstrap import (
    BY_PERCENTILE,
    percentile_interval,
    unit_weights,
    weighted_quantile,
)
from gliofed.evaluation.intervals.estimate import NOT_TRAINED
from gliofed.evaluation.intervals.sample import (
    BY_LOGIT,
    BY_ORDER,
    BY_STUDENT,
    BY_WILSON,
    PredictionSample,
    bootstrap_t_interval,
    order_statistic_interval,
    wilson_interval,
)
from gliofed.evaluation.metrics.calibration import (
    calibration_error,
    calibration_error_if_calibrated,
    calibration_in_the_large,
    recalibration,
)
from gliofed.evaluation.metrics.discrimination import (
    auc,
    auc_between_pairs,
    between_groups,
    recall,
    recall_at_other_recall,
)
from gliofed.evaluation.metrics.segmentation import lesions
from gliofed.evaluation.results import CaseResult, LesionCounts
from gliofed.experiments.case_scores import score_case
from gliofed.experiments.model_runs import ModelRun
from gliofed.markers import MARKERS
from gliofed.types import Case, Labels, Person, Placement, Prediction, PreparationMeasures, Sequence

RNG = np.random.default_rng


def two(positive):
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], 1)


def tied(seed, n=40, classes=2):
    """Truth with every class, and probabilities among which many are equal."""
    rng = RNG(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    found = rng.dirichlet(np.ones(classes), n) + np.eye(classes)[truth] * 0.4
    found = found.round(1)
    return truth, found / found.sum(1, keepdims=True)


# ---- the pure functions


@pytest.mark.parametrize("seed", range(4))
def test_the_auc_over_pairs_of_classes_is_that_of_scikit_learn(seed) -> None:
    truth, found = tied(seed, classes=3)
    expected = sklearn.roc_auc_score(truth, found, multi_class="ovo", average="macro")
    assert auc_between_pairs(truth, found, unit_weights(40))[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_grades_against_each_other_are_questions_of_two_classes(seed) -> None:
    truth, found = tied(seed, classes=3)
    _, of_two, shares = between_groups(truth, found, [2], [0, 1])
    expected = sklearn.roc_auc_score(truth == 2, found[:, 2].round(12))
    assert auc(of_two, shares, unit_weights(40))[0] == pytest.approx(expected, abs=1e-9)
    inside, of_two, shares = between_groups(truth, found, [1], [0])
    assert inside.sum() == (truth < 2).sum() == len(of_two)
    low, high = found[truth < 2, 0], found[truth < 2, 1]
    odds = np.where(low + high > 0, high / np.maximum(low + high, 1e-300), 0.5)
    expected = sklearn.roc_auc_score(truth[truth < 2] == 1, odds.round(12))
    assert auc(of_two, shares, unit_weights(len(of_two)))[0] == pytest.approx(expected, abs=1e-9)


def test_who_has_no_share_in_either_group_stands_in_the_middle() -> None:
    _, _, shares = between_groups(np.array([0, 1]), np.array([[0.0, 0, 1], [0, 0, 1]]), [1], [0])
    assert shares.tolist() == [[0.5, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("seed", range(4))
def test_sensitivity_and_specificity_are_those_of_scikit_learn(seed) -> None:
    truth, found = tied(seed)
    said = found.argmax(1)
    for of_class in (1, 0):
        expected = sklearn.recall_score(truth, said, pos_label=of_class)
        assert recall(truth, found, unit_weights(40), of_class)[0] == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("seed", range(6))
def test_the_operating_point_is_on_the_empirical_roc_curve(seed) -> None:
    truth, found = tied(seed, 30)
    for of_class in (1, 0):
        alarms, hits, _ = sklearn.roc_curve(
            truth == of_class, found[:, of_class], drop_intermediate=False
        )
        expected = hits[alarms <= 0.1 + 1e-9].max()
        point = recall_at_other_recall(truth, found, unit_weights(30), of_class, 0.9)[0]
        assert point == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("negatives", "expected"), [(10, 1.0), (9, 0.5)])
def test_one_false_alarm_is_allowed_where_it_is_a_tenth_and_not_above(negatives, expected) -> None:
    truth = np.array([1, 0, 1, *[0] * (negatives - 1)])
    chance = np.array([0.9, 0.8, 0.7, *[0.1] * (negatives - 1)])
    assert (
        recall_at_other_recall(truth, two(chance), unit_weights(len(truth)), 1, 0.9)[0] == expected
    )


def test_equal_probabilities_stand_on_one_side_of_a_threshold() -> None:
    truth = np.array([1, 1, 0, 0])
    assert recall_at_other_recall(truth, two([0.5] * 4), unit_weights(4), 1, 0.9)[0] == 0
    assert recall_at_other_recall(truth, two([0.5] * 4), unit_weights(4), 1, 0.0)[0] == 1


WEIGHTED = {
    "pairs": auc_between_pairs,
    "error": calibration_error,
    "recall": lambda t, p, w: recall(t, p, w, 1),
    "point": lambda t, p, w: recall_at_other_recall(t, p, w, 1, 0.9),
}


@pytest.mark.parametrize("metric", WEIGHTED)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_counts_as_that_many_copies(metric, classes) -> None:
    truth, found = tied(1, 30, classes)
    weights = RNG(2).integers(0, 4, (6, 30))
    weights[5] = 0
    scored = WEIGHTED[metric]
    for row, value in zip(weights, scored(truth, found, weights), strict=True):
        copies = np.repeat(np.arange(30), row)
        again = scored(truth[copies], found[copies], unit_weights(len(copies)))[0]
        assert value == pytest.approx(again, nan_ok=True, abs=1e-12)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.83])
def test_a_weighted_quantile_is_that_of_numpy(share) -> None:
    values = RNG(3).normal(size=12).round(1)
    weights = RNG(4).integers(0, 4, (20, 12))
    for row, value in zip(weights, weighted_quantile(values, weights, share), strict=True):
        assert value == pytest.approx(np.quantile(np.repeat(values, row), share), abs=1e-12)
    assert np.isnan(weighted_quantile(values, weights[:1] * 0, share)).all()


# ---- calibration


def test_the_calibration_error_is_that_of_ten_equal_bins() -> None:
    rng = RNG(5)
    chance = rng.permutation(np.linspace(0.01, 0.99, 60))
    truth = (rng.random(60) < 0.4).astype(int)
    bins = np.array_split(np.argsort(chance), 10)
    expected = sum(abs(chance[b].mean() - truth[b].mean()) * len(b) / 60 for b in bins)
    assert calibration_error(truth, two(chance), unit_weights(60))[0] == pytest.approx(
        expected, abs=1e-12
    )


def test_of_three_classes_it_asks_whether_the_likeliest_is_right() -> None:
    truth, found = tied(6, 50, 3)
    said, sure = found.argmax(1), found.max(1)
    expected = calibration_error((said == truth) * 1, two(sure), unit_weights(50))[0]
    assert calibration_error(truth, found, unit_weights(50))[0] == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_order_does_not_change_the_calibration_error(seed) -> None:
    truth, found = tied(seed, 37)
    mixed = RNG(seed).permutation(37)
    one, other = (
        calibration_error(truth[o], found[o], unit_weights(37)) for o in (np.arange(37), mixed)
    )
    assert one == pytest.approx(other, abs=1e-12)


def test_a_calibrated_model_has_some_error_on_few_cases_and_hardly_any_on_many() -> None:
    chance = RNG(7).random(4000)
    few, many = (calibration_error_if_calibrated(two(chance[:n]), 400) for n in (50, 4000))
    truth = (RNG(8).random(4000) < chance).astype(int)
    for n, expected in ((50, few), (4000, many)):
        low, high = np.percentile(expected, [0.5, 99.5])
        assert low < calibration_error(truth[:n], two(chance[:n]), unit_weights(n))[0] < high
    assert few.mean() > 0.08
    assert many.mean() < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_slope_and_intercept_are_those_of_scikit_learn(seed) -> None:
    rng = RNG(seed)
    odds = rng.normal(0.3, 1.5, 80)
    truth = (rng.random(80) < 1 / (1 + np.exp(-0.5 * odds))).astype(int)
    found = recalibration(truth, two(1 / (1 + np.exp(-odds))))
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None], truth)
    intercept, slope = found.coefficients[0]
    assert slope == pytest.approx(peer.coef_[0, 0], abs=1e-6)
    assert intercept == pytest.approx(peer.intercept_[0], abs=1e-6)


def test_in_the_large_makes_the_predictions_add_up_to_the_cases() -> None:
    rng = RNG(1)
    odds = rng.normal(0.3, 1.5, 80)
    truth = (rng.random(80) < 0.8).astype(int)
    shift = calibration_in_the_large(truth, two(1 / (1 + np.exp(-odds)))).coefficients[0, 0]
    assert (1 / (1 + np.exp(-odds - shift))).sum() == pytest.approx(truth.sum(), abs=1e-6)
    assert shift > 0.5


# ---- lesions


def by_hand(truth, predicted, spacing):
    """Flood fill, voxel by voxel."""

    def parts(mask):
        left = {tuple(map(int, v)) for v in np.argwhere(mask)}
        while left:
            part, edge = set(), [left.pop()]
            while edge:
                at = edge.pop()
                part.add(at)
                for step in itertools.product((-1, 0, 1), repeat=3):
                    near = tuple(a + s for a, s in zip(at, step, strict=True))
                    if near in left:
                        left.remove(near)
                        edge.append(near)
            if len(part) * np.prod(spacing) >= 50 - 1e-6:
                yield part

    def meets(part, other):
        return any(other[v] for v in part)

    drawn, said = list(parts(truth)), list(parts(predicted))
    met = sum(meets(p, predicted) for p in drawn)
    return LesionCounts(len(drawn), met, sum(not meets(p, truth) for p in said))


@pytest.mark.parametrize("seed", range(4))
def test_lesions_are_counted_as_by_hand(seed) -> None:
    rng = RNG(seed)
    one, two_ = (rng.random((12, 11, 10)) < 0.12 for _ in range(2))
    step = np.array([1.0, 2, 7])
    found = lesions(one, two_, step)
    assert found == by_hand(one, two_, step)
    assert found.true > 0
    assert found.false > 0


def test_corners_join_and_the_smallest_lesion_has_50_microlitres() -> None:
    empty, step = np.zeros((9, 9, 9), bool), np.ones(3)
    corner = empty.copy()
    corner[0:4, 0:4, 0:3] = corner[4:6, 4, 3] = True  # 48 and 2 voxels that share a corner
    assert lesions(corner, empty, step) == LesionCounts(1, 0, 0)
    assert lesions(empty, corner, step) == LesionCounts(0, 0, 1)
    corner[5, 4, 3] = False
    assert lesions(corner, empty, step) == LesionCounts(0, 0, 0)
    whole = corner.copy()
    whole[4:, 4:, 4:] = True
    assert lesions(whole, corner, step) == LesionCounts(1, 1, 0)


# ---- intervals


def plain(n, seed=0, replicates=4000):
    drawn = RNG(seed).multinomial(n, np.full(n, 1 / n), replicates)
    return PredictionSample(tuple(map(str, range(n))), np.zeros(n, int), np.arange(n), drawn)


def test_the_bootstrap_t_is_that_of_a_loop_over_resamples() -> None:
    sample, values = plain(25, replicates=300), RNG(1).gamma(1, size=25)
    found = bootstrap_t_interval(sample, values, np.ones(25), (0, math.inf))
    mean, error = values.mean(), stats.sem(values)
    steps = []
    for row in sample.resamples:
        copies = np.repeat(values, row)
        steps.append((copies.mean() - mean) / stats.sem(copies))
    left, right = np.percentile(steps, [2.5, 97.5])
    expected = [mean - right * error, mean - left * error]
    assert [found.low, found.high] == pytest.approx(expected, abs=1e-9)


def test_a_rate_has_the_error_of_a_ratio_of_means() -> None:
    rng = RNG(2)
    above, below = rng.poisson(1, 400) * 1.0, rng.poisson(2, 400) + 1.0
    found = bootstrap_t_interval(plain(400), above, below, (0, math.inf))
    rate = above.sum() / below.sum()
    error = np.std(above - rate * below, ddof=1) / below.mean() / 20
    assert [found.low, found.high] == pytest.approx([rate - 2 * error, rate + 2 * error], rel=0.05)


def test_wilson_counts_patients_and_repeats_for_what_they_tell() -> None:
    hits = (np.arange(20) < 15) * 1.0
    once_each = wilson_interval(plain(20), hits, np.ones(20))
    assert (once_each.low, once_each.high) == pytest.approx(wilson_bounds(15, 20))
    # the same answers by two seeds tell nothing more; nor do two cases of each patient
    twice = np.tile(np.arange(20), 2)
    for seeds in (np.repeat([0, 1], 20), np.zeros(40, int)):
        sample = PredictionSample(tuple(map(str, twice)), seeds, twice, np.ones((1, 40), int))
        again = wilson_interval(sample, np.tile(hits, 2), np.ones(40))
        assert (again.low, again.high) == pytest.approx((once_each.low, once_each.high))
    all_right = wilson_interval(plain(20), np.ones(20), np.ones(20))
    assert (all_right.low, all_right.high) == pytest.approx(wilson_bounds(20, 20))


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("n", [45, 120])
def test_a_quantile_lies_between_the_values_of_ranks_that_the_binomial_gives(n, share) -> None:
    values = RNG(n).permutation(np.arange(1.0, n + 1))  # each value is its own rank
    found = order_statistic_interval(
        plain(n, replicates=0), values, share, (-1, n + 2), np.zeros(0)
    )
    # the ends' chances to lie beyond: below 2.5 % at the outer rank, above it at the inner one
    below, under = math.floor(found.low), stats.binom(n, share)
    assert under.cdf(below - 1) <= 0.025 < under.cdf(below)
    above = math.ceil(found.high)
    assert under.sf(above - 1) <= 0.025 < under.sf(above - 2)


def test_a_quantile_that_no_case_bounds_ends_at_the_bound_or_has_no_interval() -> None:
    values = np.linspace(0.2, 0.9, 20)  # with 20 cases, none may lie below the tenth percentile
    found = order_statistic_interval(plain(20, replicates=0), values, 0.1, (0, 1), np.zeros(0))
    assert found.low == 0
    assert found.high < 0.5
    lost = order_statistic_interval(
        plain(20, replicates=0), values, 0.1, (-math.inf, 1), np.zeros(0)
    )
    assert (lost.low, "too few cases" in lost.note) == (None, True)


def test_a_quantile_of_patients_with_several_cases_is_resampled_by_patient() -> None:
    own = drawn(30)
    row = figures(own, "mask")["dice_median"]
    two_each = [dataclasses.replace(r, patient=f"p{i // 2}") for i, r in enumerate(own)]
    again = figures(two_each, "mask")["dice_median"]
    assert (row.method, again.method) == (BY_ORDER, BY_PERCENTILE)


@pytest.mark.parametrize("seed", range(3))
def test_of_two_repeats_delongs_variance_is_that_of_the_mean_of_correlated_areas(seed) -> None:
    rng = RNG(seed)
    truth = np.array([0] * 11 + [1] * 8)
    one, other = (rng.integers(0, 8, 19) / 10 + 0.15 * truth for _ in range(2))
    parts = []
    for score in (one, other):
        wins = np.array([[(p > n) + (p == n) / 2 for n in score[:11]] for p in score[11:]])
        parts.append((wins.mean(1), wins.mean(0)))
    rows, columns = (sum(side) / 2 for side in zip(*parts, strict=True))
    variance = rows.var(ddof=1) / 8 + columns.var(ddof=1) / 11
    area = rows.mean()
    half = 1.959963985 * math.sqrt(variance) / (area * (1 - area))
    expected = [1 / (1 + math.exp(-math.log(area / (1 - area)) - s * half)) for s in (-1, 1)]
    found = auc_interval(auc_sums(truth, two(one), two(other)))
    assert [found.low, found.high] == pytest.approx(expected, abs=1e-6)
    assert found.method == BY_DELONG


def worlds(n, trials):
    """(holds by the table's interval, holds by the percentile one) of means of a skewed score."""
    rng = RNG(11)
    truth = 0.92 * 12 / 14.2 + 0.08 / 5
    for _ in range(trials):
        good = rng.random(n) < 0.92
        values = np.where(good, rng.beta(12, 2.2, n), rng.beta(1, 4, n))
        drawn = rng.multinomial(n, np.full(n, 1 / n), 300)
        sample = PredictionSample(tuple(map(str, range(n))), np.zeros(n, int), np.arange(n), drawn)
        both = (
            bootstrap_t_interval(sample, values, np.ones(n), (0, 1)),
            percentile_interval(drawn @ values / n),
        )
        yield [i.low <= truth <= i.high for i in both]


def test_the_interval_of_a_skewed_mean_holds_the_truth_where_the_percentile_one_does_not() -> None:
    student, percentile = np.mean(list(worlds(50, 800)), axis=0)
    assert 0.93 < student < 0.97
    assert percentile < min(0.94, student - 0.01)


# ---- the table


def answer(case, seed=1, **other) -> CaseResult:
    even = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS}
    return dataclasses.replace(
        CaseResult("m", seed, "external", "external", f"c{case}", "there", f"p{case}", Labels(),
                   even, None, None, None, None),
        **other,
    )  # fmt: skip


def asked(marker, truth, found, **other) -> list[CaseResult]:
    names = next(m.classes for m in MARKERS if m.id == marker)
    return [
        answer(i, labels=Labels({marker: names[t]}), probabilities={marker: tuple(map(float, p))},
               **other)
        for i, (t, p) in enumerate(zip(truth, found, strict=True))
    ]  # fmt: skip


def figures(results, task, replicates=200):
    rows = score_table(results, replicates, "m")
    return {r.metric: r for r in rows if (r.site, r.task) == ("all", task)}


METHODS = {
    "auc": BY_LOGIT, "auc_delong": BY_DELONG, "auc_pairs": BY_LOGIT, "auc_4_against_2_3": BY_LOGIT,
    "auc_3_against_2": BY_LOGIT, "sensitivity": BY_WILSON, "specificity": BY_WILSON,
    "sensitivity_at_specificity_90": BY_PERCENTILE, "specificity_at_sensitivity_90": BY_PERCENTILE,
    "brier": BY_STUDENT, "calibration_slope": BY_WALD, "calibration_intercept": BY_WALD,
    "calibration_in_the_large": BY_WALD,
}  # fmt: skip


@pytest.mark.parametrize(("marker", "classes"), [("idh", 2), ("grade", 3)])
def test_every_measure_of_a_marker_has_value_interval_and_method(marker, classes) -> None:
    truth, found = tied(1, 40, classes)
    rows = figures(asked(marker, truth, found), marker)
    assert list(rows) == [m.id for m in MARKER_METRICS if m.classes in (None, classes)]
    for name, row in rows.items():
        assert row.value is not None, name
        if name == "calibration_error":
            assert (row.low, row.method) == (None, "")
            assert "a calibrated model would have" in row.note
            continue
        assert row.low <= row.value <= row.high, name
        assert row.low < row.high
        assert row.method == METHODS.get(name, row.method) != ""
    assert rows["auc_delong"].value == rows["auc"].value
    if classes == 2:
        assert rows["sensitivity"].n == (truth == 1).sum()
        assert rows["specificity"].n == (truth == 0).sum()
    else:
        assert rows["auc_3_against_2"].n == (truth < 2).sum()


def test_a_perfect_model_has_intervals_but_no_calibration_slope() -> None:
    truth = np.array([0, 1] * 10)
    rows = figures(asked("idh", truth, two(0.1 + 0.8 * truth)), "idh")
    for name in ("auc", "auc_delong"):
        assert (rows[name].value, rows[name].method) == (1, BY_SCORE)
        assert 0.6 < rows[name].low < rows[name].high == 1
    assert rows["sensitivity"].low == pytest.approx(wilson_bounds(10, 10)[0])
    assert rows["calibration_slope"].value is None
    assert rows["calibration_slope"].note == SEPARATED
    assert rows["brier"].note == "no interval: the cases do not differ"


def test_a_model_that_says_the_same_of_all() -> None:
    rows = figures(asked("idh", [0, 1] * 10, two([0.3] * 20)), "idh")
    assert rows["auc"].value == rows["auc_delong"].value == 0.5
    assert rows["auc"].note == "no interval: the cases do not differ"
    assert rows["auc_delong"].method == BY_SCORE
    assert rows["calibration_slope"].note == ALL_EQUAL
    assert rows["calibration_in_the_large"].value == pytest.approx(math.log(7 / 3), abs=1e-6)
    assert rows["sensitivity_at_specificity_90"].value == 0
    assert rows["sensitivity_at_specificity_90"].low is None


def test_one_class_alone_and_one_case_alone() -> None:
    rows = figures(asked("idh", [1] * 8, two(np.linspace(0.2, 0.9, 8))), "idh")
    exist = {n for n, r in rows.items() if r.value is not None}
    assert exist == {"sensitivity", "brier", "calibration_error"}
    assert {rows[n].note for n in set(rows) - exist} == {"only mutant present"}
    (name,) = {r.note for r in figures(asked("grade", [2] * 5, tied(1, 5, 3)[1]), "grade").values()
               if r.value is None and "2 or 3" in r.note}  # fmt: skip
    assert name == "no case of 2 or 3"
    alone = figures(asked("idh", [1], two([0.7])), "idh")
    assert alone["brier"].value == pytest.approx(0.09)
    assert (alone["brier"].low, alone["brier"].note) == (None, "one patient")
    assert (alone["sensitivity"].value, alone["sensitivity"].low) == (1, None)


def test_nobody_known_and_a_probability_that_is_not_finite() -> None:
    assert {r.note for r in figures([answer(1), answer(2)], "idh").values()} == {
        "no case with a known label"
    }
    broken = asked("idh", [0, 1, 1], two([0.2, np.nan, 0.8]))
    assert {(r.value, r.note) for r in figures(broken, "idh").values()} == {
        (None, "probability of c1 is not finite")
    }
    untrained = asked("idh", [0, 1, 1], two([np.nan] * 3))
    assert {(r.value, r.note) for r in figures(untrained, "idh").values()} == {(None, NOT_TRAINED)}


def test_delong_says_why_it_has_no_interval() -> None:
    truth, found = tied(2, 30)
    own = asked("idh", truth, found)
    same = [dataclasses.replace(r, patient="p1") if r.case in ("c1", "c2") else r for r in own]
    row = figures(same, "idh")["auc_delong"]
    assert (row.low, row.note) == (None, "no interval: patients with several cases")
    other = [dataclasses.replace(r, seed=2) for r in own[1:]]
    row = figures(own + other, "idh")["auc_delong"]
    assert (row.low, row.note) == (None, "no interval: the seeds tested different cases")
    again = figures(own + [dataclasses.replace(r, seed=2) for r in reversed(own)], "idh")
    one = figures(own, "idh")["auc_delong"]
    # two repeats with the same answers are as sure as one
    assert (again["auc_delong"].low, again["auc_delong"].high) == pytest.approx((one.low, one.high))


def drawn(n, seed=0):
    rng = RNG(seed)
    return [
        answer(i, dice=float(rng.beta(9, 2)), hd95_mm=float(rng.gamma(2, 4)), volume_ml=v + e,
               volume_true_ml=v, lesions=LesionCounts(1 + i % 3, 1, i % 2))
        for i, (v, e) in enumerate(zip(rng.uniform(5, 90, n), rng.normal(2, 6, n), strict=True))
    ]  # fmt: skip


def test_every_measure_of_the_outline_is_that_of_numpy() -> None:
    results = drawn(30)
    rows = figures(results, "mask")
    assert list(rows) == [m.id for m in SEGMENTATION_METRICS]
    dices, far = (np.array([getattr(r, n) for r in results]) for n in ("dice", "hd95_mm"))
    true = np.array([r.volume_true_ml for r in results])
    errors = np.array([r.volume_ml for r in results]) - true
    expected = {
        "dice": dices.mean(), "dice_median": np.median(dices), "dice_p10": np.quantile(dices, 0.1),
        "hd95_mm": far.mean(), "hd95_mm_median": np.median(far),
        "lesion_sensitivity": 30 / 60, "false_lesions": 0.5,
        "volume_error_ml": errors.mean(), "volume_error_abs_ml": np.abs(errors).mean(),
        "volume_error_percent": 100 * (errors / true).mean(),
        "volume_error_abs_percent": 100 * np.abs(errors / true).mean(),
    }  # fmt: skip
    for name, value in expected.items():
        row = rows[name]
        assert row.value == pytest.approx(value, abs=1e-6), name
        assert row.low < row.value < row.high
        quantiles = ("dice_median", "dice_p10", "hd95_mm_median")
        assert row.method == (BY_ORDER if name in quantiles else BY_STUDENT)


def test_outlines_that_lack_something_are_left_out_and_said() -> None:
    bare = {r.note for r in figures([answer(i) for i in range(3)], "mask").values()}
    assert bare == {NO_MASK}
    far = [dataclasses.replace(r, hd95_mm=None) for r in drawn(3)]
    assert figures(far, "mask")["hd95_mm"].note == NO_SURFACE
    results = drawn(6)
    results[0] = dataclasses.replace(results[0], lesions=None, hd95_mm=None)
    rows = figures(results, "mask")
    assert (rows["lesion_sensitivity"].n, rows["hd95_mm_median"].n, rows["dice"].n) == (5, 5, 6)
    assert "1 prediction" in rows["hd95_mm_median"].note
    none = [dataclasses.replace(r, lesions=LesionCounts(0, 0, 0)) for r in results]
    rows = figures(none, "mask")
    assert (rows["lesion_sensitivity"].value, rows["lesion_sensitivity"].note) == (None, NO_LESIONS)
    assert (rows["false_lesions"].value, rows["false_lesions"].low) == (0, None)


# ---- an answer beside the truth


def test_an_answer_carries_the_patient_the_sequences_and_the_lesions(tmp_path) -> None:
    drawn_mask = np.zeros((20, 20, 20), np.uint8)
    drawn_mask[2:7, 2:7, 2:7] = drawn_mask[12:17, 12:17, 12:17] = 1
    said = np.zeros((20, 20, 20), np.float32)
    said[2:7, 2:7, 2:7] = said[2:7, 12:17, 12:17] = 1
    path = tmp_path / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(drawn_mask, np.eye(4)), path)
    person = Person("F", 55.0, "a scanner")
    case = Case("c", "s", "p", {}, path, Labels({"idh": "mutant"}), person)
    there = Placement((20, 20, 20), np.eye(4), np.eye(4))
    prepared = PreparedCase(
        case, "key", np.zeros((4, 1, 1, 1), np.float16), None, (True, False, False, True),
        np.eye(4), None, {}, there, PreparationMeasures(1.0, None, {}),
    )  # fmt: skip
    cell = ModelRun("federated", 1, Split("external", {}, {}, (), ()), {})
    found = score_case(Prediction(said, np.eye(4), {}), prepared, cell.origin("external"))
    assert found.person == person
    assert found.sequences == {Sequence.T1, Sequence.FLAIR}
    assert found.lesions == LesionCounts(true=2, detected=1, false=1)
    assert found.dice == 0.5
    unmasked = dataclasses.replace(prepared, case=dataclasses.replace(case, mask=None))
    bare = score_case(Prediction(said, np.eye(4), {}), unmasked, cell.origin("external"))
    assert (bare.lesions, bare.dice, bare.person) == (None, None, person)
