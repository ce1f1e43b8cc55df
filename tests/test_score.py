"""Scores against independent ways to the same figure, and intervals that know what they lack."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from made_up_answers import made_up_results
from scipy import ndimage
from sklearn import metrics as sklearn

from gliofed.errors import DataError
from gliofed.evaluation.by_case.score_table import MEDIAN_MODEL, score_table
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import score_sums
from gliofed.evaluation.claims import collect_evidence
from gliofed.evaluation.files import predictions_csv, rows_csv, rows_json
from gliofed.evaluation.intervals.bootstrap import (
    _DrawCache,
    patient_resamples,
    percentile_interval,
    unit_weights,
    weighted_mean,
    weighted_median,
)
from gliofed.evaluation.metrics.calibration import brier, calibration_curve
from gliofed.evaluation.metrics.definitions import METRIC_DEFINITIONS
from gliofed.evaluation.metrics.discrimination import auc, balanced_accuracy
from gliofed.evaluation.metrics.segmentation import dice, hd95_mm, volume_ml
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.experiments import print_figures
from gliofed.experiments.evaluation import score_predictions
from gliofed.experiments.print_figures import MANY, figures_beside
from gliofed.markers import MARKERS
from gliofed.reporting.study.report_context import write_figures
from gliofed.study import CalibrationConfig
from gliofed.types import Labels

RNG = np.random.default_rng


def random_answers(seed: int, n: int = 40, classes: int = 2):
    rng = RNG(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    scores = rng.dirichlet(np.ones(classes), n).round(1)  # rounded, so that there are ties
    return truth, scores / scores.sum(1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_binary_auc_is_that_of_scikit_learn(seed) -> None:
    truth, found = random_answers(seed)
    assert auc(truth, found, unit_weights(40))[0] == pytest.approx(
        sklearn.roc_auc_score(truth, found[:, 1])
    )


@pytest.mark.parametrize("seed", range(5))
def test_three_class_metrics_are_those_of_scikit_learn(seed) -> None:
    truth, found = random_answers(seed, classes=3)
    weights = unit_weights(40)
    assert auc(truth, found, weights)[0] == pytest.approx(
        sklearn.roc_auc_score(truth, found, multi_class="ovr", average="macro")
    )
    said = found.argmax(1)
    assert balanced_accuracy(truth, found, weights)[0] == pytest.approx(
        sklearn.balanced_accuracy_score(truth, said)
    )


@pytest.mark.parametrize("seed", range(3))
def test_brier_is_that_of_scikit_learn(seed) -> None:
    truth, found = random_answers(seed)
    assert brier(truth, found, unit_weights(40))[0] == pytest.approx(
        sklearn.brier_score_loss(truth, found[:, 1])
    )
    perfect = np.eye(3)[[0, 1, 2]]
    index = np.arange(3)
    assert brier(index, perfect, unit_weights(3))[0] == 0
    assert brier(index, perfect[:, [1, 2, 0]], unit_weights(3))[0] == 2


@pytest.mark.parametrize("metric", [auc, balanced_accuracy, brier])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_weight_counts_as_that_many_copies(metric, classes) -> None:
    truth, found = random_answers(1, 30, classes)
    weights = RNG(2).integers(0, 4, (6, 30))
    weights[5] = 0
    for row, value in zip(weights, metric(truth, found, weights), strict=True):
        copies = np.repeat(np.arange(30), row)
        again = metric(truth[copies], found[copies], unit_weights(len(copies)))[0]
        assert value == pytest.approx(again, nan_ok=True)


@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_weighted_mean_and_median_are_those_of_numpy(n) -> None:
    values = RNG(n).normal(size=n).round(1)
    weights = RNG(n + 1).integers(0, 4, (20, n))
    for row, average, middle in zip(
        weights, weighted_mean(values, weights), weighted_median(values, weights), strict=True
    ):
        copies = np.repeat(values, row)
        if len(copies):
            assert average == pytest.approx(copies.mean())
            assert middle == pytest.approx(np.median(copies))
        else:
            assert np.isnan(average)
            assert np.isnan(middle)


def test_without_cases_or_without_a_second_class_there_is_no_figure() -> None:
    nobody, nothing = np.zeros(0, int), np.zeros((0, 2))
    for metric in (auc, balanced_accuracy, brier):
        assert np.isnan(metric(nobody, nothing, unit_weights(0))).all()
    same, found = np.ones(5, int), np.full((5, 2), 0.5)
    assert np.isnan(auc(same, found, unit_weights(5))).all()
    assert np.isnan(balanced_accuracy(same, found, unit_weights(5))).all()


def test_calibration_bins_hold_equal_counts_and_their_own_means() -> None:
    probability = np.linspace(0, 1, 20)
    truth = probability > 0.5
    points = calibration_curve(truth, probability, 4)
    assert [p.n for p in points] == [5] * 4
    assert [p.observed for p in points] == [0, 0, 1, 1]
    assert points[0].predicted == pytest.approx(probability[:5].mean())
    assert calibration_curve(truth[:0], probability[:0], 4) == ()


def test_dice_by_hand_and_on_empty_masks() -> None:
    one, two, none = (np.zeros((4, 4, 4), bool) for _ in range(3))
    one[0, 0, :4], two[0, 0, 2:4] = True, True
    assert dice(one, two) == pytest.approx(2 * 2 / 6)
    assert dice(one, none) == dice(none, one) == 0
    assert dice(none, none) == 1
    assert volume_ml(one, np.array([1.0, 2, 5])) == pytest.approx(0.04)


def surface(mask):
    return mask & ~ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1, 1), (1.0, 1, 5)])
def test_hausdorff_distance_is_that_of_brute_force(seed, spacing) -> None:
    rng = RNG(seed)
    blobs = [ndimage.gaussian_filter(rng.random((14, 15, 10)), 2) for _ in range(2)]
    one, two = (b > np.quantile(b, 0.85) for b in blobs)
    step = np.array(spacing)
    a, b = (np.argwhere(surface(m)) * step for m in (one, two))
    apart = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = max(np.percentile(apart.min(1), 95), np.percentile(apart.min(0), 95))
    assert hd95_mm(one, two, step) == pytest.approx(expected, rel=1e-5)
    assert hd95_mm(one, np.zeros_like(one), step) is None


@pytest.mark.slow
def test_hd95_is_monais_bit_for_bit() -> None:
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(3)
    for _ in range(60):
        shape = rng.integers(3, 20, 3)
        noise = [
            ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0.3, 2)) for _ in "ab"
        ]
        one, two = (n > np.quantile(n, rng.uniform(0.3, 0.97)) for n in noise)
        step = rng.choice([1.0, 7.0, 0.9375, 0.4882812, 1 / 3], 3)
        with warnings.catch_warnings():  # it warns of an argument that it sets itself
            warnings.simplefilter("ignore", FutureWarning)
            expected = compute_hausdorff_distance(
                torch.from_numpy(two)[None, None], torch.from_numpy(one)[None, None],
                include_background=True, percentile=95, spacing=step.tolist(),
            )  # fmt: skip
        assert hd95_mm(one, two, step) == float(expected)


def test_a_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(300):
        values = RNG(trial).normal(size=40)
        names = [f"{trial}-{i}" for i in range(40)]
        found = percentile_interval(weighted_mean(values, patient_resamples(names, 400)))
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 300 <= 0.98


def test_a_patients_cases_are_drawn_together_and_names_decide_the_draws() -> None:
    weights = patient_resamples(["a", "b", "a", "c"], 500)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert (weights[:, 0] == 0).any()
    assert np.array_equal(weights[:, [3, 0, 1]], patient_resamples(["c", "a", "b"], 500))
    assert not np.array_equal(weights[:, [0, 1, 3]], patient_resamples(["a", "b", "d"], 500))


def test_kept_draws_are_bounded_and_one_dropped_is_drawn_again_alike() -> None:
    cache = _DrawCache(2 * 500 * 3 * 2)  # two draws of three patients, two bytes a count
    first = cache.get(("a", "b", "c"), 500)
    cache.get(("d", "e", "f"), 500)
    assert cache.get(("a", "b", "c"), 500) is first
    cache.get(("g", "h", "i"), 500)  # drops the draw of d, e and f, used longest ago
    assert cache.get(("a", "b", "c"), 500) is first
    cache.get(("j", "k", "l"), 500)
    cache.get(("m", "n", "o"), 500)
    again = cache.get(("a", "b", "c"), 500)
    assert again is not first
    assert np.array_equal(again, first)


@pytest.mark.parametrize("times", [1, 50_000])  # sums that fit 32 bits, and that do not
def test_the_auc_of_a_resample_is_that_of_its_cases_written_out(times) -> None:
    truth, found = random_answers(3)
    weights = patient_resamples([str(i) for i in range(40)], 20)
    expected = []
    for row in weights:
        copies = np.repeat(np.arange(40), row)
        expected.append(sklearn.roc_auc_score(truth[copies], found[copies, 1]))
    assert auc(truth, found, weights.astype(np.int64) * times) == pytest.approx(expected, abs=1e-12)


def test_no_interval_where_most_replicates_lack_the_figure() -> None:
    half = np.array([1.0, 2.0, np.nan, np.nan])
    assert percentile_interval(half).low is None
    assert "too few" in percentile_interval(half).note
    assert percentile_interval(np.array([1.0, 2.0, 3.0, np.nan])).low is not None
    assert percentile_interval(np.zeros(0)).low is None


def answer(case: str, model: str = "federated", right: float = 0.9, **other) -> CaseResult:
    """A case whose IDH status alone is known, answered with probability `right`."""
    number = int(case[1:])
    mutant = number % 2
    probabilities = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS}
    chance = right if mutant else 1 - right
    probabilities["idh"] = (1 - chance, chance)
    plain = CaseResult(
        model, 1, "external", "external", case, "there", case,
        Labels({"idh": "mutant" if mutant else "wildtype"}), probabilities,
        0.5 + 0.01 * number, 3.0, 10.0, 11.0,
    )  # fmt: skip
    return dataclasses.replace(plain, **other)


CASES = [f"p{i}" for i in range(12)]


def find(rows, **wanted):
    hits = [r for r in rows if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(hits) == 1, (wanted, hits)
    return hits[0]


def test_the_table_says_n_value_interval_and_what_is_missing() -> None:
    rows = score_table([answer(c) for c in CASES], 200)
    overlap = find(rows, site="all", task="mask", metric="dice")
    assert overlap.n == 12
    assert overlap.value == pytest.approx(0.555)
    assert overlap.low < overlap.value < overlap.high
    assert find(rows, site="all", task="idh", metric="auc").value == 1
    missing = find(rows, site="all", task="grade", metric="auc")
    assert (missing.n, missing.value, missing.low) == (0, None, None)
    assert "no case" in missing.note
    assert find(rows, site="all", task="markers", metric="auc_mean").value == 1


def test_one_class_alone_has_no_auc_but_a_brier_score() -> None:
    rows = score_table([answer(c) for c in CASES[1::2]], 100)
    lacking = find(rows, site="all", task="idh", metric="auc")
    assert lacking.value is None
    assert lacking.note == "only mutant present"
    assert find(rows, site="all", task="idh", metric="brier").value == pytest.approx(0.01)


def test_unmasked_cases_and_empty_predictions_are_left_out_and_counted() -> None:
    results = [answer(c) for c in CASES]
    results[0] = dataclasses.replace(results[0], dice=None, hd95_mm=None, volume_true_ml=None)
    results[1] = dataclasses.replace(results[1], dice=0.0, hd95_mm=None)
    rows = score_table(results, 100)
    assert find(rows, site="all", task="mask", metric="dice").n == 11
    distance = find(rows, site="all", task="mask", metric="hd95_mm")
    assert distance.n == 10
    assert "1 prediction" in distance.note


def test_models_are_compared_on_the_same_resamples() -> None:
    better = [answer(c) for c in CASES]
    worse = [dataclasses.replace(r, model="pooled", dice=r.dice - 0.1) for r in map(answer, CASES)]
    row = find(score_table(better + worse, 200), model="pooled", site="all", metric="dice")
    # a constant gap has no spread once paired, however much both vary
    assert [row.difference, row.difference_low, row.difference_high] == pytest.approx([-0.1] * 3)


def test_a_difference_needs_the_same_cases() -> None:
    rows = score_table([answer(c) for c in CASES] + [answer(c, "pooled") for c in CASES[:-1]], 100)
    assert find(rows, model="pooled", site="all", metric="dice").difference is None


def test_seeds_that_hold_out_different_patients_are_each_scored_on_their_own() -> None:
    first = [answer(c, role="holdout", seed=1) for c in CASES[:8]]
    second = [answer(c, role="holdout", seed=2, dice=1.0) for c in CASES[6:]]
    rows = score_table(first + second, 200)
    overlap = find(rows, site="all", task="mask", metric="dice")
    assert (overlap.n, overlap.seeds) == (12, 2)
    assert overlap.value == pytest.approx((0.535 + 1) / 2)
    assert 0.75 < overlap.low < overlap.value < overlap.high < 0.80


def test_the_median_single_site_model_stands_without_an_interval() -> None:
    results = [answer(c) for c in CASES]
    for name, drop in (("a", 0.1), ("b", 0.2), ("c", 0.4)):
        results += [
            dataclasses.replace(r, model=f"alone:{name}", dice=r.dice - drop)
            for r in map(answer, CASES)
        ]
    row = find(score_table(results, 100), model=MEDIAN_MODEL, site="all", metric="dice")
    assert row.value == pytest.approx(0.355)
    assert row.difference == pytest.approx(-0.2)
    assert row.low is None
    assert "no interval" in row.note


def test_a_probability_that_is_not_finite_is_named() -> None:
    results = [answer(c) for c in CASES]
    broken = {**results[3].probabilities, "idh": (float("nan"), 0.5)}
    results[3] = dataclasses.replace(results[3], probabilities=broken)
    row = find(score_table(results, 100), site="all", task="idh", metric="auc")
    assert row.value is None
    assert "p3" in row.note


def test_predictions_read_back_exactly() -> None:
    results = [answer(c, right=1 / 3) for c in CASES]
    results.append(answer("p40", dice=None, hd95_mm=None, volume_true_ml=None))
    assert parse_predictions(predictions_csv(results), "here") == tuple(results)


def test_a_damaged_prediction_file_is_refused_by_line() -> None:
    text = predictions_csv([answer(c) for c in CASES])
    lines = text.splitlines()
    lines[2] = lines[2].replace("external", "nowhere")
    with pytest.raises(DataError, match="here:3"):
        parse_predictions("\n".join(lines), "here")


def test_score_files_hold_every_row() -> None:
    rows = score_table([answer(c) for c in CASES], 100)
    assert len(rows_csv(ScoreRow, rows).splitlines()) == len(rows) + 1
    assert rows_json(rows).count('"metric"') == len(rows)
    gaps = [line for line in rows_csv(ScoreRow, rows).splitlines() if "no case" in line]
    assert gaps
    assert all(",," in line for line in gaps)


def test_each_metric_id_names_one_defined_quantity() -> None:
    subjects = {d.id: d.subject for d in METRIC_DEFINITIONS}
    assert len(subjects) == len(METRIC_DEFINITIONS)
    assert len({d.quantity for d in METRIC_DEFINITIONS}) == len(METRIC_DEFINITIONS)
    results = made_up_results(40, inside=10)
    found = collect_evidence(results, 20)
    sites = {r.site for r in results}
    own = [r for r in results if r.model == "federated"]
    sums = {s: score_sums([r for r in own if r.site == s and r.role == "external"]) for s in sites}
    rows = [*score_table(results, 20), *score_table_from_sums(sums), *found.confounder_scores,
            *found.comparisons, *found.against_confounders, *found.added_value]  # fmt: skip
    for row in rows:
        assert subjects[row.metric] == {"mask": "mask", "markers": "markers"}.get(
            row.task, "marker"
        )
    ids = {row.metric for row in rows}
    assert ids == set(subjects)
    alone = [r for r in found.confounder_scores if r.task == "grade"]
    assert {r.metric for r in alone} == {"auc_4_against_2_3"}


@pytest.mark.process
def test_figures_of_another_process_are_the_same_bytes(tmp_path, monkeypatch) -> None:
    results = [r for r in made_up_results(40) if r.model == "federated"]
    scored = score_predictions(results, "federated", CalibrationConfig(), 100)
    write_figures(scored, tmp_path / "here")
    here = {p.name: p.read_bytes() for p in (tmp_path / "here").iterdir()}
    assert len(here) > 5
    with figures_beside(MANY - 1) as few:
        assert few is write_figures
    monkeypatch.setattr(print_figures, "draw_for_print", None)  # nothing is drawn here
    monkeypatch.setattr(print_figures, "cores", lambda: 2)
    with figures_beside(MANY) as write:
        write(scored, tmp_path / "there")
    assert {p.name: p.read_bytes() for p in (tmp_path / "there").iterdir()} == here
    monkeypatch.setattr(print_figures, "cores", lambda: 1)
    with figures_beside(MANY) as alone:
        assert alone is write_figures
