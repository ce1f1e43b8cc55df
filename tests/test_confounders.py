"""Confounders, strata and verdicts on made-up patients whose truth is known."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from made_up_answers import EVEN, answer, binary, chance, cohort, made_up_results
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from gliofed.evaluation.claims import collect_evidence, judge_claim, judge_claims
from gliofed.evaluation.comparison import BY_CHANCE, BY_DELONG, Comparison
from gliofed.evaluation.confounding import (
    AGE,
    CONFOUNDERS,
    GIVEN_AGE,
    GIVEN_IDH,
    GIVEN_SCORE,
    IDH_SCORE,
    IDH_TRUE,
    SEX,
    VOLUME,
    WITHIN,
    added_value,
    compare_with_confounders,
    confounder_scores,
)
from gliofed.evaluation.paired import MIN_CASES_PER_CLASS
from gliofed.evaluation.strata import case_volumes, strata_for, strata_table
from gliofed.types import SEQUENCES, UNKNOWN, Labels, Person, Sequence

RNG = np.random.default_rng


def of(rows, **wanted):
    (row,) = (r for r in rows if all(getattr(r, k) == v for k, v in wanted.items()))
    return row


def column(results, value):
    return np.array([value(r) for r in results])


def is_mutant(r):
    return r.labels["idh"] == "mutant"


def is_methylated(r):
    return r.labels["mgmt"] == "methylated"


def logit(r, task):
    return np.log(r.probabilities[task][1] / r.probabilities[task][0])


# Confounders alone


def test_each_confounder_ranks_in_its_own_direction_on_the_cases_that_have_both() -> None:
    results = cohort(0, 120)
    results = [dataclasses.replace(r, volume_true_ml=10.0 + (i * 37) % 101)
               for i, r in enumerate(results)]  # fmt: skip
    for i in range(20):
        gone = Person(results[i].person.sex) if i % 2 else Person(age=results[i].person.age)
        results[i] = dataclasses.replace(results[i], person=gone)
    results[30] = dataclasses.replace(results[30], labels=Labels({"idh": "mutant"}))
    rows = confounder_scores(results, 200)
    aged = [r for r in results if r.person.age is not UNKNOWN]
    row = of(rows, model=AGE, task="idh")
    assert row.value == pytest.approx(
        roc_auc_score(column(aged, is_mutant), -column(aged, lambda r: r.person.age))
    )
    assert (row.n, row.low < row.value < row.high) == (110, True)
    sexed = [r for r in results if r.person.sex is not UNKNOWN and "mgmt" in r.labels]
    row = of(rows, model=SEX, task="mgmt")
    assert row.value == pytest.approx(
        roc_auc_score(column(sexed, is_methylated), column(sexed, lambda r: r.person.sex == "F"))
    )
    assert row.n == 109
    row = of(rows, model=VOLUME, task="idh")
    sizes = column(results, lambda r: r.volume_true_ml)
    assert row.value == pytest.approx(roc_auc_score(column(results, is_mutant), sizes))
    known = [r for r in results if "mgmt" in r.labels]
    for name, score in ((IDH_SCORE, lambda r: r.probabilities["idh"][1]), (IDH_TRUE, is_mutant)):
        row = of(rows, model=name, task="mgmt")
        assert row.value == pytest.approx(
            roc_auc_score(column(known, is_methylated), column(known, score))
        )
    assert of(rows, model=AGE, task="grade").note == "no case with a known label and a score"


def test_of_the_grade_four_is_ranked_against_two_and_three_by_rising_age() -> None:
    ages = RNG(0).uniform(20, 80, 60)
    results = [answer(i, {"grade": "234"[i % 3]}, person=Person(age=a)) for i, a in enumerate(ages)]
    row = of(confounder_scores(results, 100), model=AGE, task="grade")
    assert row.value == pytest.approx(roc_auc_score(np.arange(60) % 3 == 2, ages))


def test_every_marker_has_one_direction_and_a_source_in_each_confounder() -> None:
    for confounder in CONFOUNDERS:
        assert not {*confounder.up} & {*confounder.down}
        assert confounder.source
        if confounder.name in (AGE, SEX, VOLUME):
            assert {*confounder.up, *confounder.down} == {*EVEN}


@pytest.mark.parametrize(
    ("rare", "there"), [(MIN_CASES_PER_CLASS - 1, False), (MIN_CASES_PER_CLASS, True)]
)
def test_too_few_of_a_class_have_n_but_no_figure(rare, there) -> None:
    truth = np.arange(40) < rare
    ages = RNG(1).uniform(20, 80, 40)
    results = [
        replace(r, person=Person(age=float(age)))
        for r, age in zip(binary(truth, RNG(0).normal(size=40)), ages, strict=True)
    ]
    row = of(confounder_scores(results, 100), model=AGE, task="idh")
    assert (row.n, row.value is not None, row.low is not None) == (40, there, there)
    assert row.note == ("" if there else "too few: idh mutant: 9; 10 of each are needed")


# What is added


def test_the_likelihood_ratio_is_that_of_scikit_learns_fits() -> None:
    results = cohort(1, 150, own=0.8)
    truth = column(results, is_methylated)
    scores = [column(results, lambda r, t=t: logit(r, t)) for t in ("idh", "mgmt")]
    losses = []
    for features in (scores[:1], scores):
        table = np.column_stack(features)
        peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(table, truth)
        losses.append(log_loss(truth, peer.predict_proba(table), normalize=False))
    row = of(added_value(results, 100), other=GIVEN_SCORE)
    assert row.p == pytest.approx(chi2.sf(2 * (losses[0] - losses[1]), 1), rel=1e-4)
    assert row.difference == pytest.approx(peer.coef_[0, 1] * scores[1].std(), rel=1e-4)
    assert row.low < row.difference < row.high
    assert (row.n, row.n_rarest_class) == (150, min(truth.sum(), 150 - truth.sum()))


def test_idh_groups_in_which_all_are_methylated_tell_nothing() -> None:
    results = [r for r in cohort(2, 150, own=1.0) if not is_mutant(r) or is_methylated(r)]
    row = of(added_value(results, 100), other=GIVEN_IDH)
    wildtype = [r for r in results if not is_mutant(r)]
    assert row.n == len(wildtype) < len(results)
    again = of(added_value(wildtype, 100), other=GIVEN_IDH)
    assert (row.difference, row.p) == pytest.approx((again.difference, again.p))


def scored(results, value):
    return [dataclasses.replace(r, probabilities=r.probabilities | {"mgmt": value(r)})
            for r in results]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda r: chance(9.0 if is_methylated(r) else -9.0), "no fit: the classes are separated"),
        (lambda r: (0.4, 0.6), "the model's score is the same for all cases"),
        (lambda r: (np.nan, np.nan), "a score is not finite"),
    ],
)
def test_what_cannot_be_fitted_says_why(value, reason) -> None:
    results = scored(cohort(3, 80), value)
    row = of(added_value(results, 100), other=GIVEN_IDH)
    assert (row.difference, row.low, row.high, row.p, row.p_holm, row.note) == (
        *(None,) * 5,
        reason,
    )


NEARLY = (
    (42, 0.1796, 1), (67, -3.1423, 0), (43, 0.1023, 1), (44, -0.0425, 1), (61, 0.2847, 0),
    (60, 0.1771, 1), (30, 0.0933, 1), (76, -1.5556, 0), (41, -0.0216, 1), (55, -2.1761, 0),
    (55, -2.8239, 0), (40, -0.708, 1), (51, -1.0353, 0), (51, -2.611, 0), (65, -0.5187, 0),
)  # fmt: skip
"""Age, logit and truth of phantoms. A line separates them by a hair: Newton's steps end far out,
where the loss has no digits left, at a slope of thousands."""


def test_classes_that_age_and_score_together_separate_have_no_slope() -> None:
    results = [
        dataclasses.replace(
            r, labels=Labels({"idh": "mutant" if t else "wildtype"}), person=Person(age=float(a)),
            probabilities=r.probabilities | {"idh": chance(x)},
        )
        for r, (a, x, t) in zip(cohort(3, 15), NEARLY, strict=True)
    ]  # fmt: skip
    row = of(added_value(results, 100), other=GIVEN_AGE)
    assert (row.difference, row.note) == (None, "no fit: the classes are separated")
    mixed = [dataclasses.replace(results[0], labels=Labels({"idh": "wildtype"})), *results[1:]]
    assert of(added_value(mixed, 100), other=GIVEN_AGE).difference is not None


def test_probabilities_of_zero_and_one_have_a_finite_logit() -> None:
    results = scored(cohort(3, 80), lambda r: (0.0, 1.0) if int(r.case[-1]) % 2 else (1.0, 0.0))
    assert of(added_value(results, 100), other=GIVEN_IDH).p is not None


def test_one_class_one_case_and_none_do_not_stop_it() -> None:
    results = cohort(4, 40)
    for part in (results[:1], [r for r in results if is_methylated(r)], []):
        for row in (*compare_with_confounders(part, 100), *added_value(part, 100)):
            if row.task == "mgmt":
                assert row.p is None
                assert row.note
    assert len(compare_with_confounders(results[:1], 100)) == 6
    assert (
        compare_with_confounders([], 100)
        == added_value([], 100)
        == confounder_scores([], 100)
        == ()
    )


def test_seeds_are_averaged_and_a_patient_twice_is_said() -> None:
    results = cohort(5, 80)
    seeds = results + [dataclasses.replace(r, seed=2) for r in results]
    for once, both in zip(added_value(results, 200), added_value(seeds, 200), strict=True):
        assert (both.n, both.p) == (once.n, pytest.approx(once.p))
    twice = results + [dataclasses.replace(r, case=r.case + "b") for r in results]
    row = of(added_value(twice, 200), other=GIVEN_SCORE)
    assert row.note == "160 cases of 80 patients, taken as if independent"


# Verdicts


def said(results, replicates=100):
    out = judge_claims(
        (), compare_with_confounders(results, replicates), added_value(results, replicates), ()
    )
    return {v.claim: v.supported for v in out}


def test_mgmt_that_is_told_from_idh_alone_is_not_shown_beyond_it() -> None:
    trials = [said(cohort(seed, 160)) for seed in range(25)]
    beyond_idh = [t["MGMT promoter methylation: adds to IDH"] for t in trials]
    assert beyond_idh.count(False) >= 23
    assert beyond_idh.count(None) == 0
    better = [t["MGMT promoter methylation: ranked better than by true IDH status alone"]
              for t in trials]  # fmt: skip
    assert better.count(True) == 0


def test_mgmt_with_a_signal_of_its_own_is_shown_beyond_idh() -> None:
    trials = [said(cohort(seed, 160, own=1.5)) for seed in range(12)]
    claims = "MGMT promoter methylation: adds to IDH", "IDH mutation: adds to age"
    for claim in claims:
        assert [t[claim] for t in trials].count(True) >= 11


def test_a_second_measurement_of_idh_adds_to_the_score_and_not_to_the_truth() -> None:
    found = {GIVEN_SCORE: 0, GIVEN_IDH: 0}
    for seed in range(20):
        rows = added_value(cohort(seed, 300), 100)
        for given in found:
            found[given] += of(rows, other=given).p < 0.05
    assert found[GIVEN_SCORE] >= 15
    assert found[GIVEN_IDH] <= 4


def asked(low, high, corrected, **fields):
    return Comparison("federated", "age alone", "external", "all", "idh", "auc", 80,
                      **({"n_rarest_class": 20, "difference": (low + high) / 2, "low": low, "high": high,
                          "p": corrected, "p_holm": corrected, "method": BY_DELONG} | fields))  # fmt: skip


@pytest.mark.parametrize(
    ("comparison", "shown"),
    [
        (asked(0.001, 0.2, 0.049), True),
        (asked(0.001, 0.2, 0.05), False),
        (asked(0.0, 0.2, 0.049), False),
        (asked(-0.2, -0.01, 0.001), False),
        (asked(0.001, 0.2, 0.01, p_holm=None, n_rarest_class=9), None),
        (asked(0.001, 0.2, 0.01, p=None, p_holm=None, note="one patient"), None),
    ],
)
def test_a_verdict_needs_the_interval_and_holms_p(comparison, shown) -> None:
    found = judge_claim(comparison, "claim")
    assert found.supported is shown
    assert found.label == {True: "supported", False: "not supported", None: "n/a"}[shown]
    assert "n = 80" in found.reason
    if shown is not None:
        assert f"{comparison.low:+.3f} to {comparison.high:+.3f}" in found.reason
        assert ("opposite direction" in found.reason) == (comparison.high < 0)
    else:
        assert ("too few: 9" in found.reason) or ("one patient" in found.reason)


def test_beside_chance_a_verdict_says_the_area_itself() -> None:
    found = judge_claim(asked(0.1, 0.3, 0.01, method=BY_CHANCE), "claim")
    assert found.reason.startswith("AUC 0.700 (95 % interval 0.600 to 0.800)")


def test_models_differ_on_whichever_side() -> None:
    for low, high, shown in ((-0.3, -0.1, True), (0.1, 0.3, True), (-0.1, 0.3, False)):
        (found,) = judge_claims((), (), (), [asked(low, high, 0.01)])
        assert found.supported is shown
        assert found.claim == "IDH mutation: federated and age alone differ"
        assert "other way" not in found.reason


def test_mgmt_within_wildtype_alone_is_enough_and_its_family_is_four() -> None:
    rows = added_value(cohort(0, 200, own=1.5), 100)
    assert {r.other for r in rows} == {GIVEN_AGE, GIVEN_SCORE, GIVEN_IDH, WITHIN}
    least = min(rows, key=lambda r: r.p)
    assert least.p_holm == pytest.approx(4 * least.p)
    within = of(rows, other=WITHIN)
    part = [r for r in cohort(0, 200, own=1.5) if not is_mutant(r)]
    area = roc_auc_score(column(part, is_methylated), column(part, lambda r: logit(r, "mgmt")))
    assert within.difference + 0.5 == pytest.approx(area)
    lost = [
        dataclasses.replace(r, p=None, p_holm=None) if r.other == GIVEN_IDH else r for r in rows
    ]
    (found,) = (v for v in judge_claims((), (), lost, ()) if "adds to IDH" in v.claim)
    assert found.supported


def test_all_evidence_on_a_run_has_a_figure_or_a_reason() -> None:
    found = collect_evidence(made_up_results(30), 100)
    for row in (
        *found.comparisons,
        *found.against_chance,
        *found.against_confounders,
        *found.added_value,
    ):
        assert row.p is not None or row.note
        assert row.low is not None or row.note or row.difference is not None
    cells = [c for cross in found.cross_site for line in cross.cells for c in line]
    for row in (*found.confounder_scores, *found.strata, *cells):
        assert row.low is not None or row.note
    assert {v.role for v in found.verdicts} == {"external", "holdout"}
    assert all(v.reason and v.claim for v in found.verdicts)
    assert len(found.verdicts) == 2 * (4 + 3 + 2 + 4 * 5)


# Strata


def test_each_stratum_has_the_figure_of_its_own_cases() -> None:
    rng = RNG(0)
    results = []
    for i in range(200):
        mutant = bool(rng.integers(2))
        labels = {"idh": "mutant" if mutant else "wildtype", "grade": "234"[rng.integers(3)],
                  "codel_1p19q": "codeleted" if rng.random() < 0.4 else "intact"}  # fmt: skip
        results.append(
            answer(
                i, labels, dice=float(rng.random()), site="gent" if i % 3 else "leiden",
                probabilities={"idh": chance(mutant + rng.normal()),
                               "codel_1p19q": chance(rng.normal())},
                person=Person("F" if i % 2 else "M", float(rng.uniform(30, 85)), f"scanner {i % 2}"),
                sequences=frozenset(SEQUENCES) - ({Sequence.T1} if i % 4 == 0 else set()),
                volume_true_ml=float(rng.uniform(5, 200)),
            )
        )  # fmt: skip
    rows = strata_table(results, 100)
    wanted = {
        "WHO grade 3": ("idh", lambda r: r.labels["grade"] == "3"),
        "women": ("idh", lambda r: r.person.sex == "F"),
        "60 years and above": ("idh", lambda r: r.person.age >= 60),
        "without T1": ("idh", lambda r: Sequence.T1 not in r.sequences),
        "scanner scanner 1": ("idh", lambda r: r.person.scanner == "scanner 1"),
        "site leiden": ("idh", lambda r: r.site == "leiden"),
        "IDH-mutant": ("codel_1p19q", is_mutant),
    }
    for title, (task, holds) in wanted.items():
        row = of(rows, stratum=title, task=task)
        part = [r for r in results if holds(r)]
        positive = {"idh": "mutant", "codel_1p19q": "codeleted"}[task]
        assert row.value == pytest.approx(
            roc_auc_score(column(part, lambda r, t=task, p=positive: r.labels[t] == p),
                          column(part, lambda r, t=task: logit(r, t)))
        )  # fmt: skip
        assert row.n == len(part)
        assert row.low < row.value < row.high
    men = [r.dice for r in results if r.person.sex == "M"]
    assert of(rows, stratum="men", task="mask").value == pytest.approx(np.mean(men))
    thirds = [r for r in rows if r.stratum.startswith("tumour") and r.task == "mask"]
    assert [r.n for r in thirds] == [67, 66, 67]
    titles = {r.stratum for r in rows}
    assert "all four sequences" in titles
    assert "without T2" not in titles
    assert of(rows, stratum="IDH-wildtype", task="mgmt").note == (
        "no case with a known label and a score"
    )


def test_sixty_is_above_and_who_said_no_age_is_in_neither() -> None:
    ages = [59.9, 60.0, UNKNOWN]
    results = [answer(i, person=Person(age=a)) for i, a in enumerate(ages)]
    parts = {s.title: [s.holds(r) for r in results] for s in strata_for(results)}
    assert parts["below 60 years"] == [True, False, False]
    assert parts["60 years and above"] == [False, True, False]
    assert "women" not in parts
    assert "all four sequences" not in parts
    assert not any("tumour" in title for title in parts)


@pytest.mark.parametrize(
    ("cases", "there"), [(MIN_CASES_PER_CLASS - 1, False), (MIN_CASES_PER_CLASS, True)]
)
def test_a_scanner_of_few_cases_is_no_stratum(cases, there) -> None:
    results = [answer(i, person=Person(scanner="Prisma"), seed=s)
               for i in range(cases) for s in (1, 2, 3)]  # fmt: skip
    assert ("scanner Prisma" in {s.title for s in strata_for(results)}) == there


@pytest.mark.parametrize(
    ("cases", "there"), [(MIN_CASES_PER_CLASS - 1, False), (MIN_CASES_PER_CLASS, True)]
)
def test_a_stratum_of_few_outlines_has_no_dice(cases, there) -> None:
    results = [answer(i, dice=0.8, seed=s) for i in range(cases) for s in (1, 2)]
    row = of(strata_table(results, 100), stratum="site gent", task="mask")
    assert (row.n, row.seeds, row.value is not None) == (cases, 2, there)
    assert row.note == ("" if there else "too few: 9 cases, 10 are needed")


def test_a_cases_volume_is_the_experts_else_the_mean_of_the_predicted() -> None:
    results = [
        answer(0, volume_true_ml=10.0, volume_ml=99.0),
        answer(1, volume_ml=20.0), answer(1, volume_ml=40.0, seed=2),
        answer(2),
    ]  # fmt: skip
    assert case_volumes(results) == {("gent", "sub-000"): 10, ("gent", "sub-001"): 30}


def test_each_role_and_only_the_model_that_was_asked_for() -> None:
    results = made_up_results(30)
    rows = strata_table(results, 100, "pooled")
    assert {(r.model, r.role) for r in rows} == {("pooled", "external"), ("pooled", "holdout")}
    assert strata_table(results, 100, "nobody") == ()
