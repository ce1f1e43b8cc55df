"""Regressions beside networks in a study: whom they train on, whom they answer, what they say."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import THIN
from feature_tables import made_up
from recorded_progress import RecordedProgress
from small_study import write_study

import gliofed
from gliofed.cli.screens.scores import show_finished_run
from gliofed.data.phantom import PhantomHospital
from gliofed.data.splits import Split, make_splits
from gliofed.errors import DataError
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.comparison import compare_models, cross_site_matrices
from gliofed.experiments.model_runs import plan_model_runs
from gliofed.experiments.regressions import (
    Regressions,
    StudyFeatures,
    plan_regressions,
    read_study_features,
    run_regressions,
)
from gliofed.experiments.run import run_study
from gliofed.models.presets import PARENT, PRESETS
from gliofed.radiomics.feature_table import FeatureTable, age_and_sex, features_csv
from gliofed.radiomics.regression import case_results, train_regressions
from gliofed.study import DataConfig, NetworkConfig, Study, load_study
from gliofed.types import UNKNOWN, Case, Labels, Person, Sequence

SITES = ("s0", "s1", "s2", "s3")
EVERY = ("age_sex", "radiomics", "radiomics_combat")


def few() -> FeatureTable:
    """Of fewer features than most tests of the regressions themselves have: these are fitted fast."""
    return made_up(features=6)


def cases_of(table: FeatureTable) -> dict[str, tuple[Case, ...]]:
    """The table's subjects as a study reads them."""
    cases = [Case(s.case, s.site, s.patient, {Sequence.T1: Path("x")}, None, s.labels, s.person)
             for s in table.subjects]  # fmt: skip
    return {site: tuple(c for c in cases if c.site == site) for site in table.sites}


def study_of(models=EVERY, seeds=(1,), **data: object) -> Study:
    given = {"root": Path("r"), "train": SITES[:3], "external": SITES[3:], **data}
    return Study(name="s", data=DataConfig(**given), seeds=seeds, models=models)


def features_of(table: FeatureTable) -> StudyFeatures:
    named = zip(table.subjects, table.values, strict=True)
    return StudyFeatures(table.names, {f"{s.site}/{s.case}": v for s, v in named})


def run(
    study: Study, cases: dict[str, tuple[Case, ...]], features: StudyFeatures, out: Path
) -> tuple[Regressions, tuple[Split, ...]]:
    splits = {seed: make_splits(study.data, cases, seed) for seed in study.seeds}
    planned = plan_regressions(study, splits)
    every = [c for own in cases.values() for c in own]
    progress = RecordedProgress()
    found = run_regressions(planned, every, features, out, progress)
    assert progress.counts == [(n, len(planned)) for n in range(len(planned))]
    return found, tuple(s for own in splits.values() for s in own)


def rows_of(table: FeatureTable, cases) -> FeatureTable:
    names = {str(c) for c in cases}
    return table.pick(np.array([f"{s.site}/{s.case}" in names for s in table.subjects]))


def test_each_trains_and_answers_by_the_split_as_fitted_directly(tmp_path) -> None:
    table = few()
    cases = cases_of(table)
    found, (split,) = run(study_of(), cases, features_of(table), tmp_path)
    inside = [c for own in split.train.values() for c in own]
    held = [c for own in split.holdout.values() for c in own]
    assert held
    for name in EVERY:
        seen = age_and_sex(table) if name == "age_sex" else table
        model = train_regressions(rows_of(seen, inside).by_site(), name, name == "radiomics_combat")
        away = case_results(model, rows_of(seen, split.external), "external", "external", 1)
        home = case_results(model, rows_of(seen, [*inside, *held]), "external", "holdout", 1)
        kept = [r for r in home if r.case in {c.id for c in held}]
        mine = [r for r in found.results if r.model == name]
        key = lambda r: (r.role, r.site, r.case)  # noqa: E731  (two sorts, one key)
        for one, other in zip(sorted(mine, key=key), sorted([*away, *kept], key=key), strict=True):
            assert (key(one), one.seed, one.fold, one.labels, one.person, one.patient) == (
                key(other), 1, "external", other.labels, other.person, other.patient
            )  # fmt: skip
            for marker, chances in one.probabilities.items():
                assert chances == pytest.approx(other.probabilities[marker], abs=1e-9, nan_ok=True)
        assert [r.case for r in mine] == [c.id for c in (*split.external, *held)]  # as networks do


def test_labels_people_and_patients_are_the_studys(tmp_path) -> None:
    table = few()
    (tmp_path / "f.csv").write_text(features_csv(table))
    turned = {"mutant": "wildtype", "wildtype": "mutant"}
    cases = {
        site: tuple(
            dataclasses.replace(
                c, labels=Labels({"idh": turned.get(c.labels["idh"], UNKNOWN)}), patient=("p" if site == "s3" else "") + c.id
            )
            for c in own
        )
        for site, own in cases_of(table).items()
    }  # fmt: skip
    study = study_of(("radiomics",), features=(tmp_path / "f.csv",))
    features = read_study_features(study, [c for own in cases.values() for c in own])
    assert features.names == table.names
    for subject, row in zip(table.subjects, table.values, strict=True):
        np.testing.assert_array_equal(features.values[f"{subject.site}/{subject.case}"], row)
    found, _ = run(study, cases, features, tmp_path)
    own = {str(c): c for cs in cases.values() for c in cs}
    for r in found.results:
        case = own[f"{r.site}/{r.case}"]
        assert (r.labels, r.patient) == (case.labels, case.patient)
    plain, _ = run(study, cases_of(table), features, tmp_path)
    for one, other in zip(found.results, plain.results, strict=True):  # its labels taught it
        assert one.probabilities["idh"] == pytest.approx(other.probabilities["idh"][::-1], abs=0.02)


def test_cases_without_features_train_nothing_and_get_no_answer(tmp_path) -> None:
    table = few()
    cases, whole = cases_of(table), features_of(table)
    lost = ("s0/s0-0", "s3/s3-4")
    kept = {k: v for k, v in whole.values.items() if k not in lost}
    study = study_of(("age_sex", "radiomics"), holdout=0.0)
    found, _ = run(study, cases, StudyFeatures(whole.names, kept), tmp_path)
    answered = {(r.model, r.case) for r in found.results}
    assert ("radiomics", "s3-3") in answered
    assert ("age_sex", "s3-4") in answered
    assert ("radiomics", "s3-4") not in answered
    assert any(n.startswith("Radiomics: 2 of 28 cases have no features.") for n in found.notes)
    fewer = {site: tuple(c for c in own if str(c) not in lost) for site, own in cases.items()}
    again, _ = run(study, fewer, StudyFeatures(whole.names, kept), tmp_path / "b")
    mine, other = ([r.probabilities for r in f.results if r.model == "radiomics"]
                   for f in (found, again))  # fmt: skip
    assert repr(mine) == repr(other)
    compared = [c for c in compare_models(found.results, 100, "age_sex") if c.task == "idh"]
    assert compared
    assert all(c.difference is None for c in compared)
    assert {c.note for c in compared} == {"not the same cases: 0 of one only, 1 of the other"}


def test_unknown_age_is_the_mean_and_what_cannot_be_fitted_is_said(tmp_path) -> None:
    cases = cases_of(few())
    study = study_of(("age_sex",))
    found, _ = run(study, cases, StudyFeatures(), tmp_path)
    assert found.notes[0] == (
        "Age and sex alone: age is unknown in 3 and sex in 3 of 28 cases; unknown counts as the mean."
    )
    assert any("no model of MGMT" in n and "only methylated known" in n for n in found.notes)
    assert all(math.isnan(p) for r in found.results for p in r.probabilities["mgmt"])
    rows = [r for r in score_table(found.results, 100, "age_sex") if r.metric == "auc"]
    assert {(r.value, "not trained" in r.note) for r in rows if r.task == "mgmt"} == {(None, True)}
    assert any(r.task == "idh" and r.value is not None for r in rows)
    nobody = {s: tuple(dataclasses.replace(c, person=Person()) for c in own)
              for s, own in cases.items()}  # fmt: skip
    blind, _ = run(study, nobody, StudyFeatures(), tmp_path / "b")
    assert blind.results == ()
    assert any("in 1 of 1 training: no training case has a value" in n for n in blind.notes)


def test_folds_and_seeds_pair_and_equal_trainings_are_fitted_once(tmp_path, monkeypatch) -> None:
    from gliofed.experiments import regressions

    asked = []
    fit = regressions.train_model
    monkeypatch.setattr(
        regressions, "train_model", lambda table, name: asked.append(name) or fit(table, name)
    )
    table = few()
    data = {"train": SITES, "external": (), "leave_one_out": ("s0", "s3"), "holdout": 0.0}
    study = study_of(("age_sex", "radiomics"), seeds=(1, 2), **data)
    found, splits = run(study, cases_of(table), features_of(table), tmp_path)
    assert len(asked) == 4  # two folds, two models; nobody is held out, so that seeds are alike
    keys = {m: [(r.seed, r.fold, r.site, r.case) for r in found.results if r.model == m]
            for m in study.models}  # fmt: skip
    assert keys["age_sex"] == keys["radiomics"]
    assert {(s, f, site) for s, f, site, _ in keys["radiomics"]} == {
        (s, f, f) for s in (1, 2) for f in ("s0", "s3")
    }
    compared = compare_models(found.results, 100, "age_sex")
    assert any(c.difference is not None for c in compared if c.task == "idh")
    assert {f.split.fold for f in plan_regressions(study, {1: splits[:2], 2: splits[2:]})} == {
        "s0", "s3"
    }  # fmt: skip
    again, _ = run(study, cases_of(table), features_of(table), tmp_path)
    assert len(asked) == 4
    assert repr(again) == repr(found)
    changed = features_of(table)
    changed.values["s1/s1-0"][0] += 1.0
    run(study, cases_of(table), changed, tmp_path)
    assert asked[4:] == ["radiomics", "radiomics"]  # what it read of s1 is another


def test_published_tables_find_cases_by_barcode_however_it_is_written(tmp_path) -> None:
    path = tmp_path / "gbm.csv"
    path.write_text("ID,Date,A,B\nTCGA-02-0006,1996.08.23,1,2\nTCGA-12-0616,2000.01.01,3,#DIV/0!\n")
    cases = [
        Case(i, "here", "other", {}, None, Labels()) for i in ("TCGA020006", "TCGA-12-0616_01")
    ]
    study = study_of(("radiomics",), features=(path,))
    found = read_study_features(study, cases)
    assert found.names == ("A", "B")
    np.testing.assert_array_equal(found.values["here/TCGA020006"], [1, 2])
    np.testing.assert_array_equal(found.values["here/TCGA-12-0616_01"], [3, np.nan])
    stranger = [Case("x1", "here", "x1", {}, None, Labels())]
    with pytest.raises(DataError, match=r"no case of the study is in .*'TCGA-02-0006'.*'X1'"):
        read_study_features(study, stranger)
    own = tmp_path / "own.csv"
    own.write_text(features_csv(few()))
    with pytest.raises(DataError, match="those of a kind"):
        read_study_features(study_of(("radiomics",), features=(path, own)), cases)
    assert (
        read_study_features(study_of(("age_sex",), features=(tmp_path / "no",)), cases)
        == StudyFeatures()
    )


def test_the_parent_takes_the_place_of_the_studys_network_and_of_nothing_else() -> None:
    study = study_of(("federated", "pooled", "parent"))
    study = dataclasses.replace(
        study,
        net=NetworkConfig("base", (1, 1, 1)),
        federation=dataclasses.replace(study.federation, quorum=2, server_lr=2.0),
    )
    splits = {1: make_splits(study.data, cases_of(few()), 1)}
    federated, pooled, parent = plan_model_runs(study, splits)
    assert (parent.model, parent.sites) == ("parent", pooled.sites)
    assert federated.effective_study(study) == study
    assert parent.effective_study(study).net == NetworkConfig("parent")
    assert dataclasses.replace(
        parent.effective_study(study), net=study.net
    ) == pooled.effective_study(study)
    assert pooled.effective_study(study) == study  # its rules of federation bind no other model
    assert parent.folder(Path("x")) == Path("x/models/seed-1/external/parent")
    assert plan_regressions(study, splits) == ()


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("study")
    hospitals = [PhantomHospital("one", 5), PhantomHospital("two", 1), PhantomHospital("three", 3)]
    features = 'features = ["features.csv"]'
    path = write_study(root, hospitals, ("age_sex", "radiomics"), data=features)
    rng = np.random.default_rng(1)
    lines = ["case,site,patient,idh,codel_1p19q,mgmt,grade,sex,age,scanner,sequences,f1,f2"]
    for site in ("one", "two", "three"):
        text = (root / "hospitals" / site / "participants.tsv").read_text()
        rows = csv.DictReader(text.splitlines(), delimiter="\t")
        for row in rows:
            name = row["participant_id"].removeprefix("sub-")
            lines.append(f"{name},{site},{name},,,,,,,,T1,{rng.normal()},{rng.normal()}")
    (root / "features.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_study_of_regressions_alone_runs_and_resumes(study_file, tmp_path, capsys) -> None:
    study = load_study(study_file)
    assert study.data.features == (study_file.parent / "features.csv",)
    outcome = run_study(
        study, tmp_path, options=gliofed.RunOptions(store=study_file.parent / "store", processes=2)
    )
    assert {r.model for r in outcome.results} == {"age_sex", "radiomics"}
    assert {r.role for r in outcome.results} == {"external", "holdout"}
    page = outcome.page.read_text()
    assert "age and sex alone" in page
    assert "radiomics" in page
    assert "features.csv: 2 of 9 cases, digest" in page
    assert not (tmp_path / "model-card.md").exists()  # no network that it could speak of
    assert len(list(tmp_path.glob("models/seed-1/external/*/model-*.json"))) == 2
    show_finished_run(outcome)
    assert "age and sex" in capsys.readouterr().out
    before = (tmp_path / "predictions.csv").read_bytes()
    run_study(study, tmp_path, options=gliofed.RunOptions(store=study_file.parent / "store"))
    assert (tmp_path / "predictions.csv").read_bytes() == before


@pytest.mark.slow
def test_beside_networks_they_change_nothing_and_enter_every_table(study_file, tmp_path) -> None:
    torch.set_num_threads(1)
    study = load_study(study_file)
    both = dataclasses.replace(study, models=("age_sex", "federated", "radiomics"))
    outcome = run_study(
        both, tmp_path, options=gliofed.RunOptions(store=study_file.parent / "store")
    )
    keys = {m: [(r.role, r.site, r.case) for r in outcome.results if r.model == m]
            for m in both.models}  # fmt: skip
    assert keys["federated"] == keys["radiomics"] == keys["age_sex"]
    areas = [r for r in outcome.rows if (r.metric, r.role, r.site) == ("auc", "external", "all")]
    assert {r.model for r in areas} == {*both.models, "federated, calibrated"}
    found = {r.model: r for r in areas if r.task == "grade"}
    if found["federated"].value is not None and found["age_sex"].value is not None:
        assert found["age_sex"].difference == pytest.approx(
            found["age_sex"].value - found["federated"].value
        )
    idh = next(m for m in cross_site_matrices(outcome.results, 100) if m.task == "idh")
    assert idh.models == ("federated", "age_sex", "radiomics")
    card = (tmp_path / "model-card.md").read_text()
    assert "Figures of the federated model" in card
    tripod = (tmp_path / "tripod-ai.csv").read_text()
    assert "logistic regressions use age and sex and features measured" in tripod
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert any(r["model"] == "age_sex" and r["note"] for r in rows if r["task"] == "mask")


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_the_parent_network_is_trained_on_the_pooled_cases(
    study_file, tmp_path, monkeypatch
) -> None:
    """With a quarter of its channels."""
    torch.set_num_threads(1)
    quarter = dataclasses.replace(PARENT, widths=tuple(w // 4 for w in PARENT.widths))
    monkeypatch.setitem(PRESETS, "parent", quarter)
    monkeypatch.setitem(PRESETS, "small", THIN)
    study = load_study(study_file)
    net = dataclasses.replace(study.net, stem=(1, 1, 1))
    both = dataclasses.replace(study, models=("pooled", "parent"), net=net)
    outcome = run_study(
        both, tmp_path, options=gliofed.RunOptions(store=study_file.parent / "store")
    )
    assert {r.model for r in outcome.results} == {"pooled", "parent"}
    last = {p.parts[-3]: p.stat().st_size
            for p in tmp_path.glob("models/*/*/*/rounds/*.safetensors")}  # fmt: skip
    assert last["parent"] > 5 * last["pooled"]
    page = outcome.page.read_text()
    assert "parent network, pooled" in page
    assert "images pooled beforehand" in page
    answers = [tuple(r.probabilities["idh"]) for r in outcome.results]
    again = run_study(both, tmp_path, options=gliofed.RunOptions(store=study_file.parent / "store"))
    assert answers == [tuple(r.probabilities["idh"]) for r in again.results]
