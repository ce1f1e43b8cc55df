"""Regressions on features by sums: as pooled, as scikit-learn, honest about what is unknown."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from feature_tables import made_up, trained
from recorded_progress import RecordedProgress
from sklearn.linear_model import LogisticRegression
from test_combat import plain_combat

from gliofed.errors import DataError
from gliofed.markers import BY_ID, MARKERS
from gliofed.radiomics import regression as room
from gliofed.radiomics.cross_validation import FOLDS, RIDGES, fold_of
from gliofed.radiomics.feature_table import FeatureTable, age_and_sex, read_published
from gliofed.radiomics.files import model_json, parse_model, weights_csv
from gliofed.radiomics.leave_one_out import MODELS, leave_one_site_out
from gliofed.radiomics.regression import (
    case_results,
    feature_coefficients,
    predict,
    train_regressions,
)
from gliofed.radiomics.standardisation import MAX_DEVIATIONS, fit_feature_scaling
from gliofed.types import Labels, Unknown


def labelled(table: FeatureTable, marker: str):
    """Rows with a known label, and their class indices."""
    found = [s.labels[marker] for s in table.subjects]
    rows = np.array([not isinstance(x, Unknown) for x in found])
    classes = BY_ID[marker].classes
    return rows, np.array([classes.index(x) for x in found if not isinstance(x, Unknown)])


def relabelled(table: FeatureTable, change) -> FeatureTable:
    subjects = tuple(dataclasses.replace(s, labels=change(s)) for s in table.subjects)
    return FeatureTable(subjects, table.names, table.values)


def same(one, other, within: float) -> None:
    for marker in MARKERS:
        a, b = one.markers[marker.id], other.markers[marker.id]
        assert (a.cases, a.note) == (b.cases, b.note)
        assert a.ridge == pytest.approx(b.ridge, nan_ok=True)
        assert a.coefficients == pytest.approx(b.coefficients, abs=within, nan_ok=True)
        assert a.errors == pytest.approx(b.errors, abs=within, nan_ok=True)


def pooled(table: FeatureTable, values=None) -> FeatureTable:
    """The cases of all hospitals as those of one."""
    subjects = tuple(dataclasses.replace(s, site="one") for s in table.subjects)
    return FeatureTable(subjects, table.names, table.values if values is None else values)


def plainly_harmonised(table: FeatureTable) -> FeatureTable:
    """ComBat of the pooled cases by the plain code of another test, as the table of one hospital."""
    persons = age_and_sex(table).values
    persons = np.nan_to_num((persons - np.nanmean(persons, 0)) / np.nanstd(persons, 0))
    site = np.array([s.site for s in table.subjects])
    rows = [np.flatnonzero(site == s) for s in table.sites]
    found = plain_combat([table.values[r] for r in rows], [persons[r] for r in rows])
    values = np.empty_like(table.values)
    for own, r in zip(found, rows, strict=True):
        values[r] = own
    return pooled(table, values)


def agree(federated, table, one_model, one_table) -> None:
    same(federated, one_model, 1e-6)
    found, expected = predict(federated, table), predict(one_model, one_table)
    for marker in MARKERS:
        if not federated.markers[marker.id].note:
            assert found[marker.id] == pytest.approx(expected[marker.id], abs=1e-6)
            assert np.ptp(found[marker.id]) > 0.2


def test_sites_together_train_the_model_of_the_pooled_cases() -> None:
    table = made_up()
    agree(trained(), table, train_regressions([pooled(table)]), pooled(table))


def test_harmonised_by_sums_is_harmonised_on_the_pooled_cases() -> None:
    table = made_up(sizes=(12, 14, 13), features=10)
    plain = plainly_harmonised(table)
    assert np.nanmax(np.abs(plain.values - table.values)) > 1
    agree(
        train_regressions(table.by_site(), harmonised=True),
        table,
        train_regressions([plain]),
        plain,
    )


@pytest.mark.parametrize("marker", ["idh", "grade"])
def test_with_more_features_than_cases_it_is_scikit_learns_ridge_on_all_of_them(marker) -> None:
    table = made_up()
    model = trained()
    rows, truth = labelled(table, marker)
    assert len(table.names) > len(truth)
    features = model.scaling.standardise(table.values)
    peer = LogisticRegression(C=1 / model.markers[marker].ridge, tol=1e-11, max_iter=10_000)
    peer.fit(features[rows], truth)
    found = predict(model, table)[marker]
    assert found == pytest.approx(peer.predict_proba(features), abs=1e-5)
    expected = peer.coef_ if marker == "grade" else peer.coef_[:1]
    assert model.markers[marker].coefficients[:, 1:] == pytest.approx(expected, abs=1e-5)


def test_standard_errors_are_those_of_the_whole_hessian() -> None:
    table = made_up()
    own = (model := trained()).markers["idh"]
    rows, _ = labelled(table, "idh")
    wide = np.column_stack([np.ones(rows.sum()), model.scaling.standardise(table.values)[rows]])
    chance = 1 / (1 + np.exp(-wide @ own.coefficients[0]))
    curve = wide.T @ (wide * (chance * (1 - chance))[:, None])
    curve += np.diag([0.0, *[own.ridge] * (wide.shape[1] - 1)])
    expected = np.sqrt(np.diag(np.linalg.inv(curve)))
    assert own.errors[0] == pytest.approx(expected, rel=1e-4)


def test_the_ridge_is_that_of_the_least_held_out_loss() -> None:
    rng = np.random.default_rng(1)

    def often_wrong(subject):
        truth = subject.labels["idh"]
        other = {"mutant": "wildtype", "wildtype": "mutant"}.get(truth, truth)
        return Labels({"idh": other if rng.random() < 0.3 else truth})

    table = relabelled(made_up(sizes=(30, 25), features=8), often_wrong)
    model = train_regressions(table.by_site())
    rows, truth = labelled(table, "idh")
    features = model.scaling.standardise(table.values)[rows]
    fold = np.array(
        [fold_of(s.patient) for s, yes in zip(table.subjects, rows, strict=True) if yes]
    )
    assert set(fold) == set(range(FOLDS))
    losses = []
    for ridge in RIDGES:
        loss = 0.0
        for k in range(FOLDS):
            peer = LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000)
            peer.fit(features[fold != k], truth[fold != k])
            held = peer.predict_log_proba(features[fold == k])
            loss -= held[np.arange(len(held)), truth[fold == k]].sum()
        losses.append(loss)
    assert model.markers["idh"].ridge == RIDGES[int(np.argmin(losses))]
    assert 0 < np.argmin(losses) < len(RIDGES) - 1


def test_an_unknown_feature_counts_as_the_mean_of_all_sites() -> None:
    table = made_up(unknown=0.3)
    model = train_regressions(table.by_site())
    assert model.scaling.mean == pytest.approx(np.nanmean(table.values, 0))
    assert model.scaling.scale == pytest.approx(np.nanstd(table.values, 0))
    filled = np.where(np.isnan(table.values), np.nanmean(table.values, 0), table.values)
    found = predict(model, FeatureTable(table.subjects, table.names, filled))
    assert found["idh"] == pytest.approx(predict(model, table)["idh"], abs=1e-12)


def test_constant_unknown_and_far_off_values_do_no_harm() -> None:
    values = np.array(
        [[1e6, 0.1, np.nan, 0.0], [1e6 + 1, 0.1, np.nan, 1e9], [1e6 + 2, 0.1, np.nan, np.nan]]
    )
    found = fit_feature_scaling([values[:1], values[1:]])
    assert found.scale[:3] == pytest.approx([np.sqrt(2 / 3), 0, 0])
    out = found.standardise(np.array([[1e6 + 1 + 2 * np.sqrt(2 / 3), 7.0, 7.0, -1e12]]))
    assert out[0] == pytest.approx([2, 0, 0, -MAX_DEVIATIONS])


def test_one_class_or_none_is_no_model_and_says_why() -> None:
    table = made_up()
    model = trained()
    assert model.markers["mgmt"].note == "only methylated known"
    assert model.markers["codel_1p19q"].note == "no case with a known label"
    assert feature_coefficients(model, BY_ID["mgmt"]) == ()
    answers = case_results(model, table, "fold", "external", seed=3)
    assert np.isnan(answers[0].probabilities["mgmt"]).all()
    assert sum(answers[0].probabilities["grade"]) == pytest.approx(1)
    assert (answers[0].model, answers[0].seed, answers[0].fold) == ("radiomics", 3, "fold")
    assert [a.labels for a in answers] == [s.labels for s in table.subjects]
    assert answers[0].person == table.subjects[0].person


def test_weights_are_sorted_and_their_intervals_are_of_the_errors() -> None:
    table = made_up()
    table.values[:, 5] = 3.0
    model = train_regressions(table.by_site())
    found = feature_coefficients(model, BY_ID["grade"])
    assert len(found) == 3 * (len(table.names) - 1)
    assert {w.class_name for w in found} == {"2", "3", "4"}
    sizes = [abs(w.value) for w in found]
    assert sizes == sorted(sizes, reverse=True)
    first = found[0]
    own = model.markers["grade"]
    row = BY_ID["grade"].classes.index(first.class_name)
    place = 1 + table.names.index(first.feature)
    assert first.value == own.coefficients[row, place]
    assert first.high - first.value == pytest.approx(1.95996 * own.errors[row, place], rel=1e-4)
    lines = weights_csv([model]).splitlines()
    assert len(lines) == 1 + len(found) + len(feature_coefficients(model, BY_ID["idh"]))


def test_age_and_sex_alone_are_a_model_of_two_features() -> None:
    table = age_and_sex(made_up(sizes=(40, 30)))
    assert table.names == ("age_years", "sex_male")
    assert np.isnan(table.values).sum(0).tolist() == [2, 2]
    model = train_regressions(table.by_site(), "age_sex")
    (first, _) = feature_coefficients(model, BY_ID["idh"])
    assert (first.feature, model.name) == ("age_years", "age_sex")
    assert first.high < 0  # made so: the older, the rarer the mutation
    assert np.isfinite(predict(model, table)["idh"]).all()


@pytest.mark.parametrize("harmonised", [False, True])
def test_a_model_file_gives_the_same_predictions(harmonised) -> None:
    table = made_up()
    model = trained(harmonised)
    again = parse_model(model_json(model), "there")
    same(again, model, 0)
    for marker, found in predict(again, table).items():
        assert np.array_equal(found, predict(model, table)[marker], equal_nan=True)


@pytest.mark.parametrize("damage", [
    lambda t: t[: len(t) // 2], lambda t: "[]", lambda t: t.replace('"idh"', '"other"'),
    lambda t: t.replace('"f3", ', ""), lambda t: t.replace('"mean": [', '"mean": ["x", '),
    lambda t: t.replace('"scale"', '"size"'),
])  # fmt: skip
def test_a_damaged_model_file_is_one_clear_error(damage) -> None:
    text = model_json(trained(True))
    assert damage(text) != text
    with pytest.raises(DataError, match=r"^there: .*train it again$"):
        parse_model(damage(text), "there")


def test_other_features_and_no_case_are_refused() -> None:
    table = made_up()
    other = FeatureTable(table.subjects, table.names[::-1], table.values)
    with pytest.raises(DataError, match="other features than radiomics"):
        predict(trained(), other)
    with pytest.raises(DataError, match="differ between hospitals"):
        train_regressions([table, other])
    with pytest.raises(DataError, match="no case to train on"):
        train_regressions([])
    with pytest.raises(DataError, match="one hospital"):
        leave_one_site_out(table.at_site("s0"))


def test_the_hospital_left_out_answers_without_its_labels_or_its_patients_elsewhere(
    monkeypatch,
) -> None:
    monkeypatch.setattr(room, "RIDGES", (10.0,))
    table = made_up(sizes=(11, 12, 10), features=4)
    answers = leave_one_site_out(table)
    assert len(answers) == len(MODELS) * len(table.subjects)
    assert {a.model for a in answers} == set(MODELS)
    assert all(a.fold == a.site and a.role == "external" for a in answers)
    hidden = relabelled(table, lambda s: Labels({}) if s.site == "s1" else s.labels)
    again = {(a.model, a.case): a for a in leave_one_site_out(hidden)}
    for answer in answers:
        if answer.site == "s1":
            assert (
                again[answer.model, answer.case].probabilities["idh"] == answer.probabilities["idh"]
            )
    twice = dataclasses.replace(table.subjects[0], patient=table.subjects[15].patient)
    linked = FeatureTable((twice, *table.subjects[1:]), table.names, table.values)
    lone = leave_one_site_out(linked.pick(np.arange(len(linked.subjects)) > 0))
    found = {(a.model, a.case): a for a in leave_one_site_out(linked)}
    for answer in lone:
        if answer.site == "s1":  # the first case is of a patient of s1, and so trains nothing here
            assert (
                found[answer.model, answer.case].probabilities["idh"] == answer.probabilities["idh"]
            )


def test_progress_ends_at_the_end(monkeypatch) -> None:
    monkeypatch.setattr(room, "RIDGES", (10.0,))
    progress = RecordedProgress()
    leave_one_site_out(made_up(sizes=(8, 9), features=3), progress)
    assert progress.counts == [(n, 6) for n in range(1, 7)]


@pytest.fixture
def published(real_data: Path) -> FeatureTable:
    """The features of 142 patients of TCGA, of their labels IDH alone, which keeps it short."""
    tables = real_data.parent / "tables"
    paths = [tables / f"TCGA_{s}_radiomicFeatures.csv" for s in ("GBM", "LGG")]
    if not all(p.is_file() for p in paths):
        pytest.skip(f"no {paths[0]}")
    table = read_published(paths, tables / "tcga_subtypes_ceccarelli2016.csv")
    assert table.values.shape == (142, 724)
    assert len(table.sites) == 7
    return relabelled(table, lambda s: Labels({"idh": s.labels["idh"]}))


@pytest.mark.slow
@pytest.mark.data
def test_on_the_published_features_hospitals_train_the_pooled_model(published) -> None:
    table = FeatureTable(published.subjects, published.names[::4], published.values[:, ::4])
    federated = train_regressions(table.by_site())
    assert len(table.names) == 181
    assert federated.markers["idh"].cases == (73, 50)
    agree(federated, table, train_regressions([pooled(table)]), pooled(table))


@pytest.mark.data
def test_on_the_published_features_harmonising_is_that_of_the_pooled_cases(published) -> None:
    known = np.array([np.isfinite(t.values).sum(0) for t in published.by_site()]).min(0) > 1
    some = np.flatnonzero(known & (np.nanstd(published.values, 0) > 0))[::12]
    names = tuple(published.names[n] for n in some)
    table = FeatureTable(published.subjects, names, published.values[:, some])
    assert len(names) > 50
    plain = plainly_harmonised(table)
    agree(
        train_regressions(table.by_site(), harmonised=True),
        table,
        train_regressions([plain]),
        plain,
    )
