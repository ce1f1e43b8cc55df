"""A study of hospitals by published features: held out in turn, by sums as pooled, scored in pairs."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from feature_tables import made_up
from published_tables import made_up_sources, real_sources
from typer.testing import CliRunner

from gliofed.cli.main import app
from gliofed.errors import DataError
from gliofed.experiments import hospital_features
from gliofed.experiments.hospital_scores import ScoredPair, score_pair
from gliofed.radiomics.feature_table import (
    AGE_SEX_NAMES,
    IDH_NAME,
    FeatureTable,
    read_features,
    with_patient_columns,
)
from gliofed.radiomics.hospital_study import (
    AGE_SEX,
    AGE_SEX_IDH,
    FEATURE_SETS,
    MAIN,
    FeatureSet,
    alone_results,
    class_counts,
    held_out_results,
    idh_wildtype,
    largest_difference,
    pooled_results,
)
from gliofed.radiomics.leave_one_out import held_out_sites
from gliofed.radiomics.published.sources import load_hospitals, read_hospitals
from gliofed.radiomics.regression import predict, train_regressions
from gliofed.types import UNKNOWN

SIX = tuple(f"f{n}" for n in range(6))
OWN = FeatureSet("own", "own", (*SIX, *AGE_SEX_NAMES), "age_sex")
TWO_SITES = (("s0", "s2"),)


@pytest.fixture(scope="module")
def table() -> FeatureTable:
    return with_patient_columns(made_up(sizes=(14, 12, 13, 10), features=6))


def test_age_sex_and_idh_are_columns_and_unknown_is_nan(table) -> None:
    assert table.names == (*SIX, *AGE_SEX_NAMES, IDH_NAME)
    for subject, (age, sex, idh) in zip(table.subjects, table.values[:, 6:], strict=True):
        assert math.isnan(age) == (subject.person.age is UNKNOWN)
        assert math.isnan(sex) == (subject.person.sex is UNKNOWN)
        assert (
            math.isnan(idh)
            if subject.labels["idh"] is UNKNOWN
            else idh == (subject.labels["idh"] == "mutant")
        )


def test_a_hospital_is_held_out_with_the_other_sites_of_its_institution(table) -> None:
    splits = {s.site: s for s in held_out_sites(table, TWO_SITES)}
    assert splits["s0"].training.sites == ("s1", "s3")
    assert splits["s2"].training.sites == ("s1", "s3")
    assert splits["s1"].training.sites == ("s0", "s2", "s3")
    assert splits["s2"].test.sites == ("s2",)
    with pytest.raises(DataError, match="without the patients of s0 none is left"):
        list(held_out_sites(table, (("s0", "s1", "s2", "s3"),)))


def test_by_sums_is_as_pooled_to_1e_6_and_another_model_is_not(table) -> None:
    federated = held_out_results(table, (OWN,), TWO_SITES)
    pooled = pooled_results(table, OWN, TWO_SITES)
    assert largest_difference(federated, pooled) < 1e-6
    other = held_out_results(table, (dataclasses.replace(AGE_SEX, name="own"),), TWO_SITES)
    assert largest_difference(federated, other) > 0.01
    with pytest.raises(ValueError, match="different cases"):
        largest_difference(federated, pooled[::-1])


def test_one_probability_beside_none_is_an_error(table) -> None:
    results = held_out_results(table, (OWN,))
    none = [
        dataclasses.replace(r, probabilities={k: (math.nan,) * len(p) for k, p in r.probabilities.items()})
        for r in results
    ]  # fmt: skip
    with pytest.raises(ValueError, match="only one of the models"):
        largest_difference(results, none)


def test_models_alone_are_of_one_site_and_never_tested_at_their_institution(table) -> None:
    results = alone_results(table, OWN, TWO_SITES)
    tested = {(r.model, r.site) for r in results}
    assert tested == {
        ("alone:s0", "s1"), ("alone:s0", "s3"), ("alone:s2", "s1"), ("alone:s2", "s3"),
        *((f"alone:{a}", b) for a in ("s1", "s3") for b in ("s0", "s1", "s2", "s3") if a != b),
    }  # fmt: skip
    by_hand = train_regressions([table.at_site("s1").only(OWN.features)])
    (first,) = [r for r in results if r.model == "alone:s1" and r.case == "s3-0"]
    row = table.at_site("s3").only(OWN.features)
    assert first.probabilities["idh"] == pytest.approx(predict(by_hand, row)["idh"][0])


def test_with_idh_as_an_input_only_mgmt_is_predicted(table) -> None:
    labels = [dataclasses.replace(s, labels=type(s.labels)({
        **s.labels.values, "mgmt": ("methylated", "unmethylated")[n % 2]
    })) for n, s in enumerate(table.subjects)]  # fmt: skip
    both = FeatureTable(tuple(labels), table.names, table.values)
    for result in held_out_results(both, (AGE_SEX_IDH,)):
        assert np.isfinite(result.probabilities["mgmt"]).all()
        assert np.isnan(result.probabilities["idh"]).all()
        assert np.isnan(result.probabilities["grade"]).all()


def test_combat_does_not_change_what_is_known_of_the_patient(table) -> None:
    model = train_regressions(table.only(OWN.features).by_site(), harmonised=True)
    assert model.harmonisation is not None
    assert (model.harmonisation.shared.spread[:6] > 0).all()
    assert model.harmonisation.shared.spread[6:].tolist() == [0, 0]
    ages = table.values[:, 6]
    assert model.scaling.mean[6] == pytest.approx(np.nanmean(ages))


def test_counts_and_wildtype_patients_are_those_of_the_labels(table) -> None:
    counts = class_counts(table)
    labels = [s.labels["idh"] for s in table.subjects if s.site == "s1"]
    assert counts["s1", "idh"] == (labels.count("wildtype"), labels.count("mutant"))
    assert sum(counts["s1", "mgmt"]) == 12
    results = held_out_results(table, (AGE_SEX,))
    found = idh_wildtype(results)
    assert 0 < len(found) < len(results)
    assert {r.labels["idh"] for r in found} == {"wildtype"}


PAIR = ScoredPair("all", "idh", "own", "age_sex")


def test_at_one_site_the_gain_within_is_delongs_paired_difference(table) -> None:
    results = held_out_results(table, (OWN, AGE_SEX))
    own, base = (
        [r for r in results if r.model == m and r.site == "s0"] for m in ("own", "age_sex")
    )
    over, within = score_pair(PAIR, own, base, 200)
    assert over.metric == "auc"
    assert within.metric == "auc_within_site"
    assert within.value == pytest.approx(over.value)
    for name in ("gain", "gain_low", "gain_high"):
        assert getattr(within, name) == pytest.approx(getattr(over, name), abs=1e-9)
    assert within.gain_low < within.gain < within.gain_high


def test_a_model_gains_nothing_over_itself_and_what_it_gains_over_a_worse_one(table) -> None:
    results = held_out_results(table, (OWN, AGE_SEX))
    own = [r for r in results if r.model == "own"]
    turned = [
        dataclasses.replace(r, probabilities={**r.probabilities, "idh": r.probabilities["idh"][::-1]})
        for r in own
    ]  # fmt: skip
    for score in score_pair(PAIR, own, own, 200):
        assert (score.gain, score.gain_low, score.gain_high) == (0, 0, 0)
    for score in score_pair(PAIR, own, turned, 200):
        assert score.gain == pytest.approx(2 * score.value - 1)
        assert score.gain_low > 0
    over, within = score_pair(PAIR, own[:3], own[:3], 200)
    assert within.n == 0 or within.n_rarest_class < 10
    assert "fewer than 10 cases of a class" in over.note


def test_cases_without_a_probability_of_either_model_are_dropped_from_both(table) -> None:
    results = held_out_results(table, (OWN, AGE_SEX))
    own, base = ([r for r in results if r.model == m] for m in ("own", "age_sex"))
    known = [r for r in base if r.labels["idh"] is not UNKNOWN]
    lost = dataclasses.replace(
        known[0], probabilities={**known[0].probabilities, "idh": (math.nan, math.nan)}
    )
    base = [lost if r is known[0] else r for r in base]
    over, _ = score_pair(PAIR, own, base, 200)
    assert over.n == len(known) - 1


def test_sites_of_one_class_have_no_auc_within(table) -> None:
    results = [
        r for r in held_out_results(table, (OWN,)) if r.labels["idh"] == "mutant" or r.site == "s9"
    ]
    over, within = score_pair(ScoredPair("all", "idh", "own"), results, (), 200)
    assert over.value is None
    assert within.value is None
    assert within.note == "no site has cases of two classes"


@pytest.mark.data
def test_on_the_real_tables_training_by_sums_is_as_pooled_to_1e_6(real_data, tmp_path) -> None:
    read = read_hospitals(load_hospitals(real_sources(tmp_path, real_data)))
    three = {"ucsf-pdgm", "henry-ford-hospital", "case-western"}
    table = with_patient_columns(read.table.without_sites(set(read.table.sites) - three))
    assert len(table.subjects) == 318 + 69 + 14
    federated, pooled = held_out_results(table, (MAIN,)), pooled_results(table, MAIN)
    assert largest_difference(federated, pooled) < 1e-6


@pytest.mark.slow
def test_one_command_reads_trains_scores_and_writes_the_page(tmp_path, monkeypatch) -> None:
    few = tuple(s for s in FEATURE_SETS if s.name in {
        "age_sex", "common_age_sex", "common_age_sex_combat", "age_sex_idh", "common_age_sex_idh"
    })  # fmt: skip
    monkeypatch.setattr(hospital_features, "FEATURE_SETS", few)
    out = tmp_path / "out"
    command = ["radiomics", "study", str(made_up_sources(tmp_path / "in")), "--out", str(out)]
    done = CliRunner().invoke(app, [*command, "--bootstrap", "100"])
    assert done.exit_code == 0, done.output
    assert "Research use only" in done.output
    with (out / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    main = [
        s for s in scores
        if (s["group"], s["marker"], s["model"]) == ("all hospitals", "idh", "common_age_sex")
    ]  # fmt: skip
    assert [s["metric"] for s in main] == ["auc", "auc_within_site"]
    assert main[0]["n"] == "160"
    assert float(main[0]["low"]) < float(main[0]["value"]) < float(main[0]["high"])
    assert all(s["marker"] == "mgmt" for s in scores if s["model"].endswith("_idh"))
    without = [s for s in scores if s["group"].startswith("without") and s["metric"] == "auc"]
    assert {(s["marker"], s["n"]) for s in without} == {("grade", "100")}
    text = (out / "results.md").read_text()
    page = (out / "report.html").read_text()
    for title in ("Patients by hospital and marker", "Rows of every table", "IDH, all hospitals"):
        assert title in text
        assert title in page
    assert "upenn: every patient has the grade of the set." in text
    sources = json.loads((out / "tables.json").read_text())
    assert [s["source"] for s in sources] == ["upenn", "ucsf-pdgm", "tcga"]
    assert len(read_features(out / "features.csv").subjects) == 160
