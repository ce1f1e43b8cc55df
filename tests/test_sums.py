"""Sums of a test: equal to the scores of all cases at one site, and honest over several."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliofed.evaluation.by_site_sums.plausibility import first_implausibility
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import (
    SUM_TASKS,
    AucSums,
    ScoreSums,
    ValueMoments,
    compared_classes,
    score_sums,
    suppress_small_counts,
)
from gliofed.evaluation.intervals.analytic import (
    BY_DELONG,
    BY_SCORE,
    BY_T,
    auc_from_sums,
    auc_interval,
    balanced_accuracy_from_sums,
    mean_interval,
)
from gliofed.evaluation.intervals.bootstrap import unit_weights, weighted_mean
from gliofed.evaluation.metrics.calibration import brier
from gliofed.evaluation.metrics.discrimination import auc, balanced_accuracy
from gliofed.evaluation.results import CaseResult
from gliofed.markers import BY_ID, MARKERS
from gliofed.types import Labels

CAP = 1000


def result(number: int, site="a", labels=None, probabilities=None, dice=0.5, **other) -> CaseResult:
    even = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS}
    whole = CaseResult(
        "federated", 1, "external", "holdout", f"c{number}", site, f"p{number}", Labels(labels),
        {**even, **(probabilities or {})}, dice, 3.0, 10.0, None if dice is None else 11.0,
    )  # fmt: skip
    return dataclasses.replace(whole, **other)


def answers(marker: str, truth, found, site="a") -> list[CaseResult]:
    """One case for each true class index, with its row of probabilities; it knows one marker."""
    names = BY_ID[marker].classes
    return [
        result(i, site, {marker: names[t]}, {marker: tuple(map(float, p))})
        for i, (t, p) in enumerate(zip(truth, found, strict=True))
    ]


def of(marker: str, truth, found, site="a") -> ScoreSums:
    return score_sums(answers(marker, truth, found, site))["holdout"]


def two(positive) -> np.ndarray:
    """Probabilities of two classes from that of the second."""
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], 1)


@st.composite
def cases(draw, site="a"):
    """Some cases, with labels, masks and probabilities that tie often."""
    out = []
    for number in range(draw(st.integers(1, 12))):
        labels = {m.id: c for m in MARKERS if (c := draw(st.sampled_from((None, *m.classes))))}
        shares = {}
        for m in MARKERS:
            parts = [draw(st.integers(0, 4)) + 0.1 for _ in m.classes]
            shares[m.id] = tuple(p / sum(parts) for p in parts)
        dice = draw(st.sampled_from((None, 0.0, 0.25, 0.8125, 1.0)))
        patient = f"p{draw(st.integers(0, number))}"
        out.append(result(number, site, labels, shares, dice, patient=patient))
    return out


def flat(value) -> list:
    """Every number and word of nested dataclasses, mappings and tuples, in a fixed order."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return [x for k in sorted(value) for x in (k, *flat(value[k]))]
    if isinstance(value, list | tuple):
        return [x for v in value for x in flat(v)]
    return [value]


def alike(one, other) -> bool:
    pairs = zip(flat(one), flat(other), strict=True)
    return all(a == b or a == pytest.approx(b, rel=1e-9, abs=1e-9) for a, b in pairs)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(cases(), st.integers(1, 4)), min_size=3, max_size=3))
def test_merging_does_not_depend_on_order(parts) -> None:
    one, two, three = (
        suppress_small_counts(score_sums(own)["holdout"], least) for own, least in parts
    )
    assert alike((one + two) + three, one + (two + three))
    assert alike(one + two, two + one)
    assert (one + two).cases == one.cases + two.cases


@settings(max_examples=60, deadline=None)
@given(cases())
def test_one_sites_values_are_those_of_its_cases(own) -> None:
    sums = score_sums(own)["holdout"]
    assert first_implausibility(sums, CAP) == ""
    dices = np.array([r.dice for r in own if r.dice is not None])
    assert (sums.cases, sums.mask.n) == (len(own), len(dices))
    table = {
        (r.task, r.metric): r
        for r in score_table_from_sums({"a": {"holdout": sums}})
        if r.site == "a"
    }
    if len(dices):
        assert table["mask", "dice"].value == pytest.approx(
            weighted_mean(dices, unit_weights(len(dices)))[0]
        )
    for marker in MARKERS:
        known = [r for r in own if isinstance(r.labels[marker.id], str)]
        truth = np.array([marker.classes.index(r.labels[marker.id]) for r in known], int)
        found = np.array([r.probabilities[marker.id] for r in known])
        found = found.reshape(len(known), len(marker.classes))
        for metric, score in (("auc_within_site", auc), ("balanced_accuracy", balanced_accuracy)):
            expected, row = (
                score(truth, found, unit_weights(len(known)))[0],
                table[marker.id, metric],
            )
            assert row.n == len(known)
            assert row.value == (None if math.isnan(expected) else expected)
        expected, row = brier(truth, found, unit_weights(len(known)))[0], table[marker.id, "brier"]
        assert row.value == (None if math.isnan(expected) else pytest.approx(expected, abs=1e-12))
        for row in (table[marker.id, m] for m in ("auc_within_site", "balanced_accuracy", "brier")):
            if row.low is not None:
                assert 0 <= row.low <= row.value <= row.high <= 2
            assert row.note or row.method
            assert (row.low is None) == (row.method == "")


def delong_variance(positive, negative) -> float:
    """DeLong's variance from all pairs, one structural component a case."""
    wins = np.array([[(p > n) + (p == n) / 2 for n in negative] for p in positive])
    return wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)


def jackknife_variance(positive, negative) -> float:
    """Arvesen's two-sample jackknife: each case left out in turn."""

    def area(p, n):
        return np.mean([[(a > b) + (a == b) / 2 for b in n] for a in p])

    left = [
        [area(np.delete(positive, i), negative) for i in range(len(positive))],
        [area(positive, np.delete(negative, i)) for i in range(len(negative))],
    ]
    return sum((len(x) - 1) * np.var(x) for x in left)


@pytest.mark.parametrize("seed", range(6))
def test_the_variance_is_delongs(seed) -> None:
    rng = np.random.default_rng(seed)
    truth = np.array([0] * 13 + [1] * 8)
    positive = rng.integers(0, 8, 21) / 10 + 0.1 * truth
    areas = of("idh", truth, two(positive)).markers["idh"].auc
    variance = areas.covariance[0][0] / areas.pairs[0] ** 2
    sides = positive[truth == 1], positive[truth == 0]
    assert variance == pytest.approx(delong_variance(*sides), rel=1e-12)
    assert variance == pytest.approx(jackknife_variance(*sides), rel=1e-9)
    assert areas.pairs == (13 * 8,)


@pytest.mark.parametrize("seed", range(4))
def test_the_covariance_of_three_classes_is_that_of_shares_counted_pair_by_pair(seed) -> None:
    rng = np.random.default_rng(seed)
    truth = np.array([0] * 4 + [1] * 5 + [2] * 3)
    found = rng.dirichlet(np.ones(3), 12).round(1)
    shares = np.zeros((3, 12))
    for c in range(3):
        for i in np.nonzero(truth == c)[0]:
            for j in np.nonzero(truth != c)[0]:
                won = (np.sign(found[i, c] - found[j, c]) + 1) / 2
                shares[c, i] += won
                shares[c, j] += won
    expected = np.zeros((3, 3))
    for k in range(3):
        own = shares[:, truth == k]
        for c in range(3):
            for d in range(3):
                n = own.shape[1]
                apart = (own[c] - own[c].mean()) * (own[d] - own[d].mean())
                expected[c, d] += n * apart.sum() / (n - 1)
    areas = of("grade", truth, found).markers["grade"].auc
    assert np.array(areas.covariance) == pytest.approx(expected, rel=1e-9)
    assert areas.pairs == (4 * 8, 5 * 7, 3 * 9)


def a_class_of_one(positive) -> AucSums:
    truth = np.array([0] * 5 + [1])
    return of("idh", truth, two(positive)).markers["idh"].auc


def test_a_class_of_one_case_enters_with_the_greatest_spread_it_can_have() -> None:
    areas = a_class_of_one([0.1, 0.2, 0.3, 0.4, 0.6, 0.5])
    assert areas.won == (4.0,)
    shares = np.array([1, 1, 1, 1, 0])
    assert areas.covariance[0][0] == pytest.approx(5 * shares.var(ddof=1) + 5**2 / 4)
    found = auc_interval(areas)
    assert found.low < 0.3 < 0.95 < found.high


# ---- intervals: how often they hold the truth

SIZES = ((9, 14), (20, 12), (6, 30), (15, 15))


def draws(rng, marker: str) -> dict[str, ScoreSums]:
    """Four hospitals whose scans differ: each adds its own constant to every case's score."""
    classes = len(BY_ID[marker].classes)
    out = {}
    for number, size in enumerate(SIZES):
        sizes = size if classes == 2 else (*size, 10)
        truth = np.repeat(np.arange(classes), sizes)
        if classes == 2:
            score = rng.normal(truth + 2.0 * number)
            found = two(1 / (1 + np.exp(-score / 4)))
        else:
            raw = np.exp(rng.normal(size=(len(truth), classes)) + np.eye(classes)[truth])
            found = raw / raw.sum(1, keepdims=True)
        out[f"s{number}"] = of(marker, truth, found, f"s{number}")
    return out


def narrower(found, factor: float, value: float):
    """The interval with its half width on the logit scale times `factor`."""
    at = math.log(value / (1 - value))
    ends = [at + factor * (math.log(x / (1 - x)) - at) for x in (found.low, found.high)]
    return [1 / (1 + math.exp(-x)) for x in ends]


@pytest.mark.parametrize("marker", ["idh", "grade"])
def test_a_stratified_interval_holds_the_truth_as_often_as_it_says(marker) -> None:
    found = []
    for trial in range(300):
        parts = draws(np.random.default_rng(trial), marker).values()
        whole = None
        for part in parts:
            whole = part if whole is None else whole + part
        areas = whole.markers[marker].auc
        between = auc_interval(areas)
        found.append((auc_from_sums(areas), between, narrower(between, 0.6, auc_from_sums(areas))))
    values = np.array([v for v, _, _ in found])
    # two normal scores one apart; of three classes, the mean of 300 unbiased estimates
    truth = 0.5 * (1 + math.erf(0.5)) if marker == "idh" else values.mean()
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(300)
    held = np.mean([b.low <= truth <= b.high for _, b, _ in found])
    held_narrow = np.mean([low <= truth <= high for _, _, (low, high) in found])
    # 300 trials of 0.95 have a standard error of 0.013
    assert 0.91 <= held <= 0.985
    assert held_narrow < 0.85


def test_differences_between_hospitals_cannot_raise_the_auc() -> None:
    rng = np.random.default_rng(1)
    parts, everything = {}, []
    for site, chance in (("bright", 0.9), ("dark", 0.1)):
        truth = (rng.random(150) < chance).astype(int)
        score = rng.random(150) / 2 + (0.5 if site == "bright" else 0)  # knows the site alone
        everything.append((truth, score))
        parts[site] = {"holdout": of("idh", truth, two(score), site)}
    truth, score = map(np.concatenate, zip(*everything, strict=True))
    assert auc(truth, two(score), unit_weights(300))[0] > 0.8
    table = score_table_from_sums(parts)
    row = find(table, site="all", task="idh", metric="auc_within_site")
    assert row.low < 0.5 < row.high
    assert "within one site" in row.note


def find(table, **wanted):
    hits = [r for r in table if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(hits) == 1, (wanted, hits)
    return hits[0]


@pytest.mark.parametrize("marker", ["idh", "grade"])
def test_a_perfect_model_still_has_an_interval_and_a_narrower_one_with_more_cases(marker) -> None:
    classes = len(BY_ID[marker].classes)
    lows = []
    for n in (1, 5, 50):
        truth = np.repeat(np.arange(classes), n)
        found = (np.eye(classes)[truth] + 0.1) / (1 + 0.1 * classes)
        areas = of(marker, truth, found).markers[marker].auc
        between = auc_interval(areas)
        assert auc_from_sums(areas) == 1 == between.high
        assert between.method == BY_SCORE
        lows.append(between.low)
        upside = auc_interval(of(marker, truth, 1 - found).markers[marker].auc)
        assert upside.low == 0
        if classes == 2:
            assert upside.high == pytest.approx(1 - between.low, abs=1e-6)
    assert 0.1 < lows[0] < lows[1] < lows[2] < 1
    if classes == 2:  # one pair is one trial: Wilson's interval
        assert lows[0] == pytest.approx(1 / (1 + 1.959964**2), abs=1e-6)


def test_the_interval_at_one_ends_where_newcombes_variance_says() -> None:
    m, n = 7, 12
    areas = of("idh", [0] * n + [1] * m, two(np.linspace(0, 1, n + m))).markers["idh"].auc
    low = auc_interval(areas).low
    star = (m + n) / 2 - 1
    spread = 1 + star * (1 - low) / (2 - low) + star * low / (1 + low)
    assert 1 - low == pytest.approx(1.959964 * math.sqrt(low * (1 - low) * spread / (m * n)))


def test_a_model_that_says_the_same_of_everybody_has_a_wide_interval() -> None:
    areas = of("idh", [0] * 8 + [1] * 8, two([0.3] * 16)).markers["idh"].auc
    assert auc_from_sums(areas) == 0.5
    found = auc_interval(areas)
    assert found.method == BY_SCORE
    assert found.low < 0.35
    assert found.high > 0.65


def test_the_interval_at_one_is_about_as_wide_as_just_below_it() -> None:
    truth = [0] * 15 + [1] * 15
    sure = np.linspace(0.1, 0.9, 30)
    swapped = sure.copy()
    swapped[[14, 15]] = swapped[[15, 14]]
    one, near = (auc_interval(of("idh", truth, two(s)).markers["idh"].auc) for s in (sure, swapped))
    assert (one.method, near.method) == (BY_SCORE, BY_DELONG)
    assert 0.5 < (1 - one.low) / (1 - near.low) < 4


def test_means_have_students_interval_within_their_range() -> None:
    values = np.array([0.2, 0.4, 0.9, 0.7])
    sums = ValueMoments(4, values.sum(), (values**2).sum())
    found = mean_interval(sums, 1.0)
    half = 3.182446 * values.std(ddof=1) / 2  # 97.5 % of Student's t with 3 degrees of freedom
    assert found.low == pytest.approx(values.mean() - half, abs=1e-6)
    assert (found.high, found.method) == (1.0, BY_T)  # the mean plus half would be above 1
    assert values.mean() + half > 1
    assert mean_interval(sums, 2.0).high == pytest.approx(values.mean() + half, abs=1e-6)
    assert "one case" in mean_interval(ValueMoments(1, 0.5, 0.25), 1.0).note
    same = mean_interval(ValueMoments(3, 1.5, 0.75), 1.0)
    assert (same.low, same.note) == (None, "no interval: the cases do not differ")


def test_balanced_accuracy_has_an_interval_even_where_all_are_right() -> None:
    truth = np.array([0] * 10 + [1] * 10)
    value, found = balanced_accuracy_from_sums(of("idh", truth, two(truth)).markers["idh"])
    wilson = 10 / (10 + 1.959964**2)
    assert value == found.high == 1
    assert found.low == pytest.approx(1 - (1 - wilson) / math.sqrt(2), abs=1e-6)
    truth = np.array([0] * 2000 + [1] * 2000)
    said = np.tile([0.9, 0.1, 0.1, 0.1], 1000)
    value, found = balanced_accuracy_from_sums(of("idh", truth, two(said)).markers["idh"])
    normal = 1.959964 * math.sqrt(2 * 0.25 * 0.75 / 2000) / 2
    assert value == 0.5
    assert [found.low, found.high] == pytest.approx([0.5 - normal, 0.5 + normal], abs=1e-3)


# ---- the table


def test_the_table_over_sites_adds_sums_and_averages_no_averages() -> None:
    rng = np.random.default_rng(3)
    parts = {}
    for site, (n, share) in {"a": (40, 0.5), "b": (8, 0.25)}.items():
        truth = (np.arange(n) < share * n).astype(int)
        parts[site] = of("idh", truth, two(rng.random(n)), site)
    table = score_table_from_sums({s: {"holdout": p} for s, p in parts.items()})
    row = find(table, site="all", task="idh", metric="auc_within_site")
    each = [find(table, site=s, task="idh", metric="auc_within_site") for s in "ab"]
    assert row.value == pytest.approx((20 * 20 * each[0].value + 2 * 6 * each[1].value) / 412)
    assert row.n == 48
    assert row.low < row.value < row.high
    whole = find(table, site="all", task="idh", metric="brier")
    own = [find(table, site=s, task="idh", metric="brier") for s in "ab"]
    assert whole.value == pytest.approx((40 * own[0].value + 8 * own[1].value) / 48)
    assert {(r.model, r.seeds, r.role) for r in table} == {("federated", 1, "holdout")}
    assert len(table) == 3 * (1 + 3 * len(MARKERS))


def test_each_figure_that_is_missing_says_why() -> None:
    table = score_table_from_sums({"a": {"external": of("idh", [1, 1], two([0.4, 0.6]))}})
    assert {r.role for r in table} == {"external"}
    for metric in ("auc_within_site", "balanced_accuracy"):
        row = find(table, site="a", task="idh", metric=metric)
        assert (row.n, row.value, row.note) == (2, None, "only mutant present")
    for metric in ("auc_within_site", "balanced_accuracy", "brier"):
        row = find(table, site="all", task="mgmt", metric=metric)
        assert (row.n, row.value, row.note) == (0, None, "no case with a known label")
    unmasked = score_sums([result(1, dice=None), result(2, dice=None)])["holdout"]
    row = find(
        score_table_from_sums({"a": {"holdout": unmasked}}), site="a", task="mask", metric="dice"
    )
    assert (row.n, row.value, row.note) == (0, None, "no case with an expert mask")
    split = {"a": {"holdout": of("idh", [1, 1], two([0.4, 0.6]))},
             "b": {"holdout": of("idh", [0, 0], two([0.4, 0.6]), "b")}}  # fmt: skip
    row = find(score_table_from_sums(split), site="all", task="idh", metric="auc_within_site")
    assert (row.n, row.value, row.note) == (4, None, "no site has two classes")
    assert (
        find(score_table_from_sums(split), site="all", task="idh", metric="balanced_accuracy").value
        == 0.5
    )


def test_a_site_with_one_class_is_not_among_the_cases_of_the_stratified_auc() -> None:
    parts = {"a": {"holdout": of("idh", [0, 0, 1, 1], two([0.1, 0.3, 0.2, 0.6]))},
             "b": {"holdout": of("idh", [0, 0, 0], two([0.4, 0.6, 0.9]), "b")}}  # fmt: skip
    row = find(score_table_from_sums(parts), site="all", task="idh", metric="auc_within_site")
    assert (row.n, row.value) == (4, 0.75)


def test_several_cases_of_a_patient_are_said() -> None:
    own = [result(i, patient="same", dice=0.1 * i) for i in range(3)]
    table = score_table_from_sums({"a": {"holdout": score_sums(own)["holdout"]}})
    assert "3 cases of 1 patients" in find(table, site="a", task="mask").note
    assert "patients" not in find(table, site="a", task="idh", metric="auc_within_site").note


def test_answers_of_two_models_or_a_case_twice_have_no_sums() -> None:
    with pytest.raises(ValueError, match="more than one site or model"):
        score_sums([result(1), result(2, model="pooled")])
    with pytest.raises(ValueError, match="more than one site or model"):
        score_sums([result(1), result(2, site="b")])
    with pytest.raises(ValueError, match="a case has two results"):
        score_sums([result(1), result(1, role="external")])
    assert score_sums([]) == {}
    assert list(score_sums([result(1), result(2, role="external")])) == ["holdout", "external"]


def test_a_probability_that_is_not_finite_leaves_its_marker_out() -> None:
    own = answers("idh", [0, 1, 1], two([0.1, math.nan, 0.9]))
    sums = score_sums(own)["holdout"]
    assert sums.omitted == {"idh": "not finite"}
    assert first_implausibility(sums, CAP) == ""
    row = find(
        score_table_from_sums({"a": {"holdout": sums}}),
        site="a",
        task="idh",
        metric="auc_within_site",
    )
    assert (row.n, row.value, row.note) == (0, None, "a probability is not finite at this site")


# ---- small counts


def test_a_marker_with_a_class_of_too_few_is_hidden_and_at_the_limit_is_not() -> None:
    sums = of("idh", [0] * 20 + [1] * 5, two(np.linspace(0, 1, 25)))
    assert suppress_small_counts(sums, 5).markers == sums.markers
    hidden = suppress_small_counts(sums, 6)
    assert "idh" not in hidden.markers
    assert hidden.omitted == {"idh": "few cases"}
    assert {"codel_1p19q", "mgmt", "grade"} == set(hidden.markers)  # nobody is counted there
    assert (hidden.cases, hidden.mask.n, hidden.min_count) == (25, 25, 6)
    row = find(
        score_table_from_sums({"a": {"holdout": hidden}}), site="a", task="idh", metric="brier"
    )
    assert (row.n, row.value, row.low) == (0, None, None)
    assert row.note == "hidden: fewer than 6 cases of a class at this site"
    one_class = of("idh", [0] * 20, two(np.linspace(0, 1, 20)))
    assert (
        "idh" in suppress_small_counts(one_class, 6).markers
    )  # a class that nobody has hides nothing


def test_a_site_with_too_few_cases_sends_only_that() -> None:
    sums = of("idh", [0, 1] * 3, two(np.linspace(0, 1, 6)))
    assert suppress_small_counts(sums, 6).cases == 6
    hidden = suppress_small_counts(sums, 7)
    assert hidden == ScoreSums(7, 0, 0, ValueMoments(), {}, dict.fromkeys(SUM_TASKS, "few cases"))
    assert first_implausibility(hidden, CAP) == ""
    table = score_table_from_sums({"a": {"holdout": hidden}})
    assert {r.note for r in table if r.site == "a"} == {"hidden: fewer than 7 cases at this site"}
    assert {r.value for r in table} == {None}


def test_a_mask_score_of_too_few_is_hidden_and_at_the_limit_is_not() -> None:
    own = [result(i, dice=0.1 * i if i < 4 else None) for i in range(9)]
    sums = score_sums(own)["holdout"]
    assert suppress_small_counts(sums, 4).mask.n == 4
    hidden = suppress_small_counts(sums, 5)
    assert (hidden.mask, hidden.omitted) == (ValueMoments(), {"mask": "few cases"})
    assert first_implausibility(hidden, CAP) == ""
    row = find(score_table_from_sums({"a": {"holdout": hidden}}), site="a", task="mask")
    assert row.note == "hidden: fewer than 5 cases with an expert mask at this site"


def test_the_row_over_all_sites_says_who_is_not_in_it() -> None:
    truth = [0] * 6 + [1] * 6
    parts = {"a": {"holdout": of("idh", truth, two(np.linspace(0.1, 0.8, 12)))},
             "b": {"holdout": suppress_small_counts(of("idh", truth[4:], two([0.5] * 8), "b"), 5)}}  # fmt: skip
    row = find(
        score_table_from_sums(parts, ["z"]), site="all", task="idh", metric="auc_within_site"
    )
    assert row.n == 12
    assert "without b (hidden: fewer than 5 cases of a class)" in row.note
    assert "without z (no usable statistics)" in row.note
    assert (
        "without"
        not in find(
            score_table_from_sums(parts), site="all", task="grade", metric="auc_within_site"
        ).note
    )


# ---- what cannot be

SOUND = of("idh", [0] * 6 + [1] * 5, two(np.linspace(0.05, 0.95, 11)[::-1]))


def with_idh(**changes) -> ScoreSums:
    own = dataclasses.replace(SOUND.markers["idh"], **changes)
    return dataclasses.replace(SOUND, markers={**SOUND.markers, "idh": own})


def with_areas(**changes) -> ScoreSums:
    return with_idh(auc=dataclasses.replace(SOUND.markers["idh"].auc, **changes))


def whole(**changes) -> ScoreSums:
    return dataclasses.replace(SOUND, **changes)


IMPOSSIBLE = {
    "a least number of 0": (whole(min_count=0), "minimum count is"),
    "too many": (whole(cases=CAP + 1, patients=9), "1001 cases"),
    "below none": (whole(cases=-1), "-1 cases"),
    "more patients than cases": (whole(patients=12), "12 patients"),
    "nobody's cases": (whole(patients=0), "0 patients"),
    "a marker too many": (whole(omitted={"idh": "few cases"}), "not those of this version"),
    "an unknown marker": (whole(omitted={"egfr": "few cases"}), "not those of this version"),
    "a hidden mask shown": (whole(omitted={"mask": "few cases"}), "a mask score and lists it as omitted"),
    "shown of no case": (whole(cases=0, patients=0, mask=ValueMoments()), "of no case"),
    "more masks than cases": (whole(mask=ValueMoments(12, 6.0, 3.5)), "12 values of mask"),
    "Dice above 1": (whole(mask=ValueMoments(11, 11.1, 11.1)), "the sum of 11 values of mask"),
    "Dice below 0": (whole(mask=ValueMoments(11, -0.1, 1.0)), "the sum of 11 values of mask"),
    "too little spread": (whole(mask=ValueMoments(11, 5.5, 2.7)), "squares of mask"),
    "too much spread": (whole(mask=ValueMoments(11, 5.5, 5.6)), "squares of mask"),
    "three classes of two": (with_idh(classes=(6, 5, 0)), "does not have 2 classes"),
    "a class below 0": (with_idh(classes=(12, -1)), "cases of each class"),
    "more labels than cases": (with_idh(classes=(6, 6)), "cases of each class"),
    "more right than there are": (with_idh(correct=(7, 0)), "right of"),
    "a Brier sum above n": (with_idh(brier=ValueMoments(11, 11.5, 11.5)), "values of idh's error"),
    "pairs below 0": (with_areas(won=(-0.5,)), "pairs won"),
    "more won than pairs": (with_areas(won=(30.5,)), "pairs won"),
    "a third of a pair": (with_areas(won=(1 / 3,)), "pairs won"),
    "a variance below 0": (with_areas(covariance=((-1.0,),)), "variance of the pairs won"),
    "too great a variance": (with_areas(covariance=((166.0,),)), "variance of the pairs won"),
    "another comparison": (with_areas(won=(1.0, 1.0)), "1 comparisons"),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_sums_that_no_cases_could_give_are_named(kind) -> None:
    sums, words = IMPOSSIBLE[kind]
    assert words in first_implausibility(sums, CAP)


def test_the_bounds_of_what_can_be_are_met() -> None:
    assert first_implausibility(SOUND, 11) == ""
    assert "11 cases" in first_implausibility(SOUND, 10)
    for sums in (whole(mask=ValueMoments(11, 11.0, 11.0)), with_areas(won=(30.0,)),
                 with_areas(covariance=((165.0,),)), whole(mask=ValueMoments(11, 5.5, 2.75))):  # fmt: skip
        assert first_implausibility(sums, CAP) == ""


def test_a_covariance_that_is_none_is_named() -> None:
    truth = np.repeat(np.arange(3), 4)
    sums = of("grade", truth, np.random.default_rng(0).dirichlet(np.ones(3), 12))
    own = sums.markers["grade"]
    assert first_implausibility(sums, CAP) == ""
    for change, words in (((1.0, 0.0), "variance"), ((1e3, 1e3), "is not a covariance matrix")):
        covariance = [list(row) for row in own.auc.covariance]
        covariance[0][1] += change[0]
        covariance[1][0] += change[1]
        areas = dataclasses.replace(own.auc, covariance=tuple(map(tuple, covariance)))
        grade = dataclasses.replace(own, auc=areas)
        bad = dataclasses.replace(sums, markers={**sums.markers, "grade": grade})
        assert words in first_implausibility(bad, CAP)
    assert list(compared_classes(3)) == [0, 1, 2]
