"""Paired comparisons against naive ways to the same figures, and how often they are wrong."""

import csv
import dataclasses
import io
import itertools
import json

import numpy as np
import pytest
from made_up_answers import answer, binary, made_up_results

from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.comparison import (
    BY_BOOTSTRAP,
    BY_DELONG,
    BY_RANKS,
    ComparedSources,
    Comparison,
    bootstrap_p_value,
    compare_models,
    compare_pair,
    compare_with_chance,
    cross_site_matrices,
    holm_correction,
)
from gliofed.evaluation.files import rows_csv, rows_json
from gliofed.evaluation.intervals.analytic import Z_95
from gliofed.evaluation.intervals.bootstrap import percentile_interval
from gliofed.evaluation.intervals.estimate import NOT_TRAINED
from gliofed.evaluation.paired import (
    MIN_CASES_PER_CLASS,
    auc_components,
    paired_estimate,
    paired_predictions,
    patient_variance,
    ranked_by_score,
)

RNG = np.random.default_rng


def two_models(seed, n=60, gap=0.0, decimals=3):
    """Scores of two models that are right about as often, unless there is a gap."""
    rng = RNG([seed, n])
    truth = np.arange(n) % 3 == 0
    shared = rng.normal(size=n) + truth
    own, base = (shared + rng.normal(size=n) for _ in range(2))
    return truth, (own + gap * truth).round(decimals), base.round(decimals)


def paired(truth, own, base, **fields):
    return binary(truth, own, model="pooled", **fields) + binary(truth, base, **fields)


def one(rows, method, task="idh", site="all", model="pooled"):
    (row,) = (r for r in rows if (r.method, r.task, r.site, r.model) == (method, task, site, model))
    return row


def kernel(above, below):
    return float(above > below) + 0.5 * float(above == below)


def naive_delong(truth, scores):
    """Difference of two AUCs and its variance, pair by pair, as DeLong et al. 1988, eqs. 4 to 6."""
    cases, controls = np.flatnonzero(truth), np.flatnonzero(~truth)
    psi = np.array([[[kernel(s[i], s[j]) for j in controls] for i in cases] for s in scores])
    area = psi.mean((1, 2))
    s10, s01 = np.cov(psi.mean(2)), np.cov(psi.mean(1))
    both = s10 / len(cases) + s01 / len(controls)
    return area[0] - area[1], both[0, 0] + both[1, 1] - 2 * both[0, 1]


@pytest.mark.parametrize("decimals", [0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_delong_is_that_of_all_pairs_one_by_one(seed, decimals) -> None:
    truth, own, base = two_models(seed, gap=0.7, decimals=decimals)
    row = one(compare_models(paired(truth, own, base), 100), BY_DELONG)
    difference, spread = naive_delong(truth, [own, base])
    error = spread**0.5
    assert row.difference == pytest.approx(difference)
    assert (row.low, row.high) == pytest.approx(
        (difference - Z_95 * error, difference + Z_95 * error)
    )
    from scipy.stats import norm

    assert row.p == pytest.approx(2 * norm.sf(abs(difference) / error))
    assert (row.n, row.n_rarest_class) == (60, 20)


def grades(seed, n):
    rng = RNG(seed)
    truth = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + np.eye(3)[truth]
    return truth, (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).round(2)


def graded(truth, found, **fields):
    return [
        answer(i, {"grade": "234"[t]}, probabilities={"grade": tuple(p)}, **fields)
        for i, (t, p) in enumerate(zip(truth.tolist(), found.tolist(), strict=True))
    ]


def test_of_three_classes_it_is_the_mean_of_each_against_the_rest() -> None:
    truth, found = grades(0, 45)
    own = paired_predictions(graded(truth, found), "grade")
    share = np.zeros(45)
    for c in range(3):
        inside, outside = np.flatnonzero(truth == c), np.flatnonzero(truth != c)
        for i, j in itertools.product(inside, outside):
            won = kernel(found[i, c], found[j, c]) / (len(inside) * len(outside)) / 3
            share[[i, j]] += won
    expected = sum(np.sum(truth == c) * np.var(share[truth == c], ddof=1) for c in range(3))
    assert patient_variance(auc_components(own), own.patients) == pytest.approx(expected)


def test_of_three_classes_its_error_is_about_the_bootstraps() -> None:
    truth, found = grades(1, 200)
    _, other = grades(2, 200)
    other = (other[np.argsort(np.argsort(truth, kind="stable"))] + found) / 2
    rows = compare_models(graded(truth, found, model="pooled") + graded(truth, other), 1000)
    delong, drawn = one(rows, BY_DELONG, "grade"), one(rows, BY_BOOTSTRAP, "grade")
    assert delong.difference == drawn.difference
    assert delong.high - delong.low == pytest.approx(drawn.high - drawn.low, rel=0.12)


def once_compared(trial, gap, replicates):
    """By patients of another name in every trial, so that other resamples are drawn."""
    truth, own, base = two_models(trial, gap=gap)
    both = [
        paired_estimate(ranked_by_score([dataclasses.replace(r, patient=f"{trial}/{r.patient}") for r in rows],
                      "idh", "mutant", lambda r: r.probabilities["idh"][1]), replicates)
        for rows in (binary(truth, own), binary(truth, base))
    ]  # fmt: skip
    return compare_pair(*both, ComparedSources("pooled", "federated", "external", "all"))


def test_of_equal_models_one_in_twenty_is_called_different() -> None:
    wrong = np.zeros(2)
    for trial in range(200):
        wrong += [row.p < 0.05 for row in once_compared(trial, 0.0, 200)]
    assert all(0.02 <= k / 200 <= 0.09 for k in wrong), wrong
    found = np.sum([[r.p < 0.05 for r in once_compared(t, 1.5, 200)] for t in range(30)], axis=0)
    assert all(found >= 24), found


def test_bootstrap_p_is_below_five_percent_where_the_interval_leaves_zero_out() -> None:
    sides = set()
    for shift in np.linspace(1.5, 2.5, 41):
        values = RNG(3).normal(shift, 1, 1999)
        found = percentile_interval(values)
        sides.add(found.low > 0)
        if abs(found.low) > 0.02:  # at the very edge the two may differ by one replicate
            assert (bootstrap_p_value(values) < 0.05) == (found.low > 0)
            assert bootstrap_p_value(-values) == bootstrap_p_value(values)
    assert sides == {True, False}
    assert bootstrap_p_value(np.full(199, 1.0)) == 2 / 200
    assert bootstrap_p_value(np.zeros(199)) == 1
    assert bootstrap_p_value(np.zeros(0)) is None
    assert bootstrap_p_value(np.full(10, np.nan)) is None


def test_seeds_that_agree_are_one_and_others_are_averaged_by_patient() -> None:
    truth, own, base = two_models(4, gap=0.5)
    _, again, more = two_models(5, gap=0.5)
    first = paired(truth, own, base)
    alike = compare_models(first + paired(truth, own, base, seed=2), 200)
    once = compare_models(first, 200)
    for method in (BY_DELONG, BY_BOOTSTRAP):
        assert one(alike, method).low == pytest.approx(one(once, method).low)
        assert one(alike, method).n == 60
    rows = compare_models(first + paired(truth, again, more, seed=2), 200)
    parts = [naive_delong(truth, [own, base])[0], naive_delong(truth, [again, more])[0]]
    assert one(rows, BY_DELONG).difference == pytest.approx(np.mean(parts))
    psi = np.mean(
        [[[[kernel(s[i], s[j]) for j in np.flatnonzero(~truth)] for i in np.flatnonzero(truth)]
          for s in seed] for seed in ((own, base), (again, more))], axis=0
    )  # fmt: skip
    gap = psi[0] - psi[1]
    spread = gap.mean(1).var(ddof=1) / 20 + gap.mean(0).var(ddof=1) / 40
    wide = one(rows, BY_DELONG)
    assert (wide.high - wide.low) / 2 / Z_95 == pytest.approx(spread**0.5)


def test_a_patient_scanned_twice_is_no_second_patient() -> None:
    rows = paired(*two_models(6, gap=0.5))
    twice = [dataclasses.replace(r, case=f"{r.case}-again") for r in rows]
    others = [dataclasses.replace(r, patient=f"{r.patient}-again") for r in twice]
    width = []
    for part in (rows, rows + twice, rows + others):
        found = one(compare_models(part, 100), BY_DELONG)
        width.append(found.high - found.low)
    assert width[1] == pytest.approx(width[0], rel=0.03)
    assert width[2] == pytest.approx(width[0] / 2**0.5, rel=0.03)


def plain(p, n_rarest_class=MIN_CASES_PER_CLASS):
    return Comparison("a", "b", "external", "all", "idh", "auc", 40, n_rarest_class, 0.1, 0.0, 0.2, p, None,
                      BY_DELONG)  # fmt: skip


def test_holm_is_the_worked_example_and_the_closure_of_bonferroni() -> None:
    # the example of Wikipedia's article "Holm-Bonferroni method"
    worked = holm_correction([plain(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [c.p_holm for c in worked] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    ps = RNG(0).random(6) ** 3
    for i, c in enumerate(holm_correction([plain(float(p)) for p in ps])):
        subsets = (s for k in range(1, 7) for s in itertools.combinations(range(6), k) if i in s)
        closed = max(min(1.0, len(s) * min(ps[list(s)])) for s in subsets)
        assert c.p_holm == pytest.approx(closed)


def test_what_tests_nothing_is_no_member_of_holms_family() -> None:
    family = holm_correction(
        [
            plain(0.02),
            plain(None),
            plain(0.001, n_rarest_class=MIN_CASES_PER_CLASS - 1),
            plain(0.04),
        ]
    )
    assert [c.p_holm for c in family] == [0.04, None, None, 0.04]
    assert holm_correction([]) == []


def outlined(dices, model, **fields):
    return [answer(i, model=model, dice=float(d), **fields) for i, d in enumerate(dices)]


def test_signed_ranks_are_those_of_all_signs_one_by_one() -> None:
    own, base = RNG(1).random((2, 9))
    gaps = own - base
    ranks = np.argsort(np.argsort(abs(gaps))) + 1
    signs = np.array(list(itertools.product([0, 1], repeat=9)))
    middle = 9 * 10 / 4
    far = abs(signs @ ranks - middle) >= abs(ranks[gaps > 0].sum() - middle)
    row = one(compare_models(outlined(own, "pooled") + outlined(base, "federated"), 200),
              BY_RANKS, "mask")  # fmt: skip
    assert row.p == pytest.approx(far.mean())
    walsh = [(a + b) / 2 for a, b in itertools.combinations_with_replacement(gaps, 2)]
    assert row.difference == pytest.approx(np.median(walsh))
    assert not row.is_primary
    assert (row.low, row.p_holm) == (None, None)


def test_dice_is_compared_on_the_mean_of_the_same_patients() -> None:
    base = RNG(2).uniform(0.5, 0.9, 40)
    own = base + RNG(3).normal(0.03, 0.03, 40)
    results = outlined(own, "pooled") + outlined(base, "federated")
    row = one(compare_models(results, 500), BY_BOOTSTRAP, "mask")
    error = (own - base).std(ddof=1) / 40**0.5
    assert row.difference == pytest.approx((own - base).mean())
    assert row.high - row.low == pytest.approx(2 * Z_95 * error, rel=0.1)
    assert row.p < 0.01
    assert row.is_primary
    assert row.p_holm == row.p
    half = [r for r in results if r.model == "pooled" or r.case < "sub-020"]
    assert one(compare_models(half, 100), BY_BOOTSTRAP, "mask").note == (
        "not the same cases: 20 of one only, 0 of the other"
    )


@pytest.mark.parametrize("task", ["idh", "grade", "mask"])
def test_identical_models_do_not_differ(task) -> None:
    own = [r for r in made_up_results(30, (1, 2), 0) if r.model == "federated"]
    same = [dataclasses.replace(r, model="pooled") for r in own]
    rows = [r for r in compare_models(own + same, 200) if r.task == task]
    assert len(rows) == 2
    for row in rows:
        assert (row.difference, row.p) == (0, 1)
        assert (row.low, row.high) == ((None, None) if row.method == BY_RANKS else (0, 0))


def cases_without_a_comparison():
    truth, own, base = two_models(0, 12)
    rows = paired(truth, own, base)
    nan = dataclasses.replace(rows[0], probabilities=rows[0].probabilities | {"idh": (np.nan,) * 2})
    other = dataclasses.replace(rows[0], seed=7)
    relabelled = dataclasses.replace(rows[0], labels=rows[1].labels)
    return {
        "not the same cases: 0 of one only, 1 of the other": rows[1:],
        "not the same cases: 1 of one only, 1 of the other": [other, *rows[1:]],
        "not the same labels or not once each": [relabelled, *rows[1:]],
        "the score of sub-000 is not finite": [nan, *rows[1:]],
        NOT_TRAINED: [
            r if r.model == "pooled" else dataclasses.replace(r, probabilities=nan.probabilities)
            for r in rows
        ],
        "only mutant present": [r for r in rows if r.labels["idh"] == "mutant"],
        "one patient": [dataclasses.replace(r, patient="p") for r in rows],
        "a case has two predictions": rows * 2,
        "no case with a known label and a score": outlined([1.0], "pooled"),
        "not the same cases: 12 of one only, 0 of the other": rows[:12],
    }


@pytest.mark.parametrize("reason", cases_without_a_comparison())
def test_what_cannot_be_compared_says_why(reason) -> None:
    rows = compare_models(cases_without_a_comparison()[reason], 100)
    for method in (BY_DELONG, BY_BOOTSTRAP):
        row = one(rows, method)
        assert (row.difference, row.low, row.high, row.p, row.p_holm) == (None,) * 5
        assert row.note == reason
    assert compare_models([], 100) == ()


def test_delong_says_where_there_is_no_spread_to_measure() -> None:
    truth = np.arange(20) == 0
    rows = compare_models(paired(truth, RNG(0).normal(size=20), RNG(1).normal(size=20)), 100)
    row = one(rows, BY_DELONG)
    assert (row.p, row.note, row.n_rarest_class) == (
        None,
        "one mutant case: no spread to measure",
        1,
    )
    truth = np.arange(20) < 10
    rows = compare_models(paired(truth, truth * 1.0, truth * -1.0), 100)
    row = one(rows, BY_DELONG)
    assert (row.difference, row.p, row.note) == (1, None, "the pairs won have no spread")
    assert one(rows, BY_BOOTSTRAP).p == pytest.approx(2 / 101)


def test_two_differing_patients_do_not_stop_the_signed_ranks() -> None:
    for own, base in (([0.5, 0.6], [0.5, 0.7]), ([0.5, 0.6], [0.4, 0.7])):
        rows = compare_models(outlined(own, "pooled") + outlined(base, "federated"), 100)
        assert one(rows, BY_RANKS, "mask").p == 1


def test_each_group_of_cases_is_a_family_and_the_order_of_answers_is_nothing() -> None:
    results = made_up_results(40)
    rows = compare_models(results, 100)
    assert sorted(rows, key=repr) == sorted(compare_models(results[::-1], 100), key=repr)
    groups = {(r.role, r.site) for r in rows}
    assert groups == {("external", "all"), ("holdout", "all"),
                      *(("holdout", s) for s in ("gent", "leiden", "utrecht"))}  # fmt: skip
    for role, site in groups:
        family = [r for r in rows if (r.role, r.site) == (role, site) and r.is_primary]
        assert len(family) == 4 * 5
        least = min((r for r in family if r.p_holm is not None), key=lambda r: r.p, default=None)
        if least:
            size = sum(r.p_holm is not None for r in family)
            assert least.p_holm == pytest.approx(min(1, size * least.p))


def test_the_least_p_of_a_large_family_can_still_be_small_enough() -> None:
    base = RNG(0).uniform(0.5, 0.9, 20)
    results = outlined(base, "federated")
    for k in range(12):
        results += outlined(base - 0.1 - 0.001 * k, f"alone:{k}")
    for row in compare_models(results, 100):
        if row.is_primary and row.task == "mask":
            assert row.p_holm < 0.05


def test_against_chance_the_interval_is_the_score_tables() -> None:
    external = [r for r in made_up_results(60, inside=0) if r.model == "federated"]
    rows = compare_with_chance(external, 500)
    table = {(r.model, r.task, r.metric, r.site): r for r in score_table(external, 500)}
    assert [r.task for r in rows] == ["idh", "codel_1p19q", "mgmt", "grade"]
    for row in rows:
        peer = table["federated", row.task, "auc", "all"]
        assert np.add((row.difference, row.low, row.high), 0.5) == pytest.approx(
            (peer.value, peer.low, peer.high)
        )
        assert (row.p < 0.05) == (row.low > 0 or row.high < 0)


def test_the_cross_matrix_has_every_model_on_every_site_as_the_table_has_them() -> None:
    results = [r for r in made_up_results(30) if (r.model, r.site) != ("alone:gent", "leiden")]
    table = {(r.model, r.role, r.site, r.task, r.metric): r for r in score_table(results, 100)}
    found = cross_site_matrices(results, 100)
    assert [(c.task, c.metric) for c in found] == [
        ("mask", "dice"), ("idh", "auc"), ("codel_1p19q", "auc"), ("mgmt", "auc"), ("grade", "auc"),
    ]  # fmt: skip
    for cross in found:
        assert cross.models == (
            "federated",
            "pooled",
            "alone:gent",
            "alone:leiden",
            "alone:utrecht",
        )
        assert cross.columns == (("external", "amsterdam"), ("holdout", "gent"),
                                 ("holdout", "leiden"), ("holdout", "utrecht"))  # fmt: skip
        for model, cells in zip(cross.models, cross.cells, strict=True):
            for (role, site), cell in zip(cross.columns, cells, strict=True):
                assert (cell.model, cell.role, cell.site) == (model, role, site)
                if (model, site) == ("alone:gent", "leiden"):
                    assert (cell.n, cell.value, cell.note) == (0, None, "not tested there")
                    continue
                peer = table[model, role, site, cross.task, cross.metric]
                assert (cell.n, cell.value) == (peer.n, pytest.approx(peer.value))
                assert (cell.low, cell.high) == pytest.approx((peer.low, peer.high))


def test_comparisons_as_csv_and_json_say_the_same() -> None:
    truth, own, base = two_models(0)
    rows = compare_models(paired(truth, own, base), 100)
    lines = list(csv.DictReader(io.StringIO(rows_csv(Comparison, rows))))
    objects = json.loads(rows_json(rows))
    assert len(lines) == len(objects) == len(rows) == 10
    for line, found, row in zip(lines, objects, rows, strict=True):
        assert Comparison(**found) == row
        assert line["p"] == ("" if row.p is None else str(row.p))
    assert rows_csv(Comparison, []).startswith("model,other,role")
