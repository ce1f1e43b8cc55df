"""Late fusion: the network's IDH, its mask, age and sex, in a run, a model folder, a prediction."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from conftest import THIN
from small_study import write_study
from test_calibrate import answers
from test_model_folder import RECIPE, calibration, no_card

import gliofed
from gliofed.calibration.fusion import (
    PRIOR_DEVIATION,
    PRIOR_WEIGHT,
    Fusion,
    FusionInputs,
    LinearPart,
    MarkerFusion,
    WeightCases,
    fit_weights,
    known_inputs,
)
from gliofed.calibration.fusion_file import fusion_json, parse_fusion
from gliofed.data.phantom import PhantomHospital
from gliofed.errors import DataError, ModelError, StudyError
from gliofed.evaluation.logistic_regression import class_probabilities
from gliofed.experiments.fused_predictions import (
    calibrated_fused,
    fused_results,
    inputs_note,
)
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunOptions
from gliofed.inference.people import find_people, parse_person
from gliofed.models.combine import combine_models
from gliofed.models.export.bundle_texts import metadata_of, readme_of
from gliofed.models.export.onnx_file import properties_of
from gliofed.models.folder import FUSION, RECORD, add_fusion, read_model, write_model
from gliofed.models.network import build_net
from gliofed.models.presets import PRESETS
from gliofed.radiomics.cross_validation import fold_of
from gliofed.radiomics.input_names import MASK_FEATURES
from gliofed.radiomics.mask_features import mask_features
from gliofed.radiomics.standardisation import sum_over_sites
from gliofed.study import NetworkConfig, load_study, parse_study
from gliofed.types import UNKNOWN, Person
from gliofed.validation.locate import locate

OLD, YOUNG, NOBODY = Person("M", 70.0), Person("F", 30.0), Person()
MASK = LinearPart(("volume_ml", "sphericity"), (40.0, 0.6), (20.0, 0.0), (0.4, 9.0))
PERSON = LinearPart(("age_years", "sex_male"), (50.0, 0.5), (10.0, 0.5), (-1.0, 0.2))
IDH = MarkerFusion("idh", MASK, PERSON, (0.5, 0.25, 0.75), (3, 4))
UNKNOWN_MASK = np.full((1, 2), np.nan)


def site(seed: int, n: int) -> WeightCases:
    """Cases whose truth is drawn by a sum of three log odds with the weights 0.3, 0.8 and 0.5."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(0, 2, (n, 3))
    chance = class_probabilities(np.array([[0.3, 0.8, 0.5]]), parts)[:, 1]
    return WeightCases(parts, (rng.random(n) < chance).astype(np.int64))


def test_the_weights_of_all_sites_are_those_of_the_pooled_cases_and_the_true_ones() -> None:
    sites = [site(1, 1500), site(2, 2500), site(3, 0)]
    pooled = WeightCases(
        np.concatenate([s.parts for s in sites]), np.concatenate([s.truth for s in sites])
    )
    joint = fit_weights(lambda at: sum_over_sites(s.sums(at) for s in sites))
    assert joint == pytest.approx(fit_weights(pooled.sums), abs=1e-9)
    assert joint == pytest.approx((0.3, 0.8, 0.5), abs=0.08)  # standard errors are 0.025
    assert fit_weights(site(4, 0).sums) == (PRIOR_WEIGHT,) * 3
    one = fit_weights(site(5, 1).sums)  # one case moves no weight far
    assert max(abs(w - PRIOR_WEIGHT) for w in one) < 2 * PRIOR_DEVIATION


def test_log_odds_are_summed_by_weight_and_what_is_unknown_moves_nothing() -> None:
    own = np.array([[0.6, 0.4]])
    odds = math.log(0.4 / 0.6)
    for person, moved in (
        (OLD, -2.0 + 0.2),
        (YOUNG, 2.0 - 0.2),
        (Person(age=70.0), -2.0),
        (Person("F"), -0.2),
        (Person(age=500.0), -5.0),  # clipped
        (NOBODY, 0.0),
    ):
        fused = IDH.fuse(own, FusionInputs(UNKNOWN_MASK, [person]))
        assert math.log(fused[0, 1] / fused[0, 0]) == pytest.approx(0.5 * odds + 0.75 * moved)
        assert fused.sum() == pytest.approx(1)
    big = FusionInputs(np.array([[60.0, 0.9]]), [NOBODY])  # sphericity has no spread: left out
    fused = IDH.fuse(np.repeat(own, 3, axis=0), big)
    assert fused.shape == (3, 2)
    assert math.log(fused[2, 1] / fused[2, 0]) == pytest.approx(0.5 * odds + 0.25 * 0.4)
    assert np.isnan(IDH.fuse(np.full((1, 2), np.nan), big)).all()
    found = Fusion({"idh": IDH}, {}).fuse({"idh": own, "mgmt": own}, big)
    assert found["mgmt"] is own
    assert known_inputs(OLD) == {"age": "70", "sex": "M"}
    assert known_inputs(Person("F")) == {"sex": "F"}
    assert known_inputs(NOBODY) == {}


def test_features_of_a_mask_are_those_of_a_box_of_known_size(make_prepared) -> None:
    prepared = make_prepared("a", {}, "s")
    shape = prepared.image.shape[1:]
    image = np.zeros((4, *shape), np.float16)
    image[0], image[1], image[2], image[3] = 1, 3, 2, -1
    case = dataclasses.replace(
        prepared,
        image=image,
        present=(True, True, True, False),
        affine=np.diag([1.0, 2.0, 3.0, 1.0]),
    )
    mask = np.zeros(shape, bool)
    mask[1:5, 1:3, 1:3] = True  # 4 x 4 x 6 mm
    found = dict(zip(MASK_FEATURES, mask_features(case, mask).tolist(), strict=True))
    assert found["volume_ml"] == pytest.approx(0.096)
    assert found["surface_per_mm"] == pytest.approx((2 * 16 + 4 * 24) / 96)
    assert found["sphericity"] == pytest.approx((36 * math.pi * 96**2) ** (1 / 3) / 128)
    spread = sorted([1.25 * 16 / 15, 4 * 0.25 * 16 / 15, 9 * 0.25 * 16 / 15])
    assert found["elongation"] == pytest.approx((spread[1] / spread[2]) ** 0.5)
    assert found["flatness"] == pytest.approx((spread[0] / spread[2]) ** 0.5)
    assert (found["T1_mean"], found["T1CE_mean"], found["T2_sd"]) == (1, 3, 0)
    assert (found["T1CE_less_T1_mean"], found["enhancing_fraction"]) == (2, 1)
    assert math.isnan(found["FLAIR_mean"])
    assert math.isnan(found["T2_less_FLAIR_mean"])
    empty = dict(zip(MASK_FEATURES, mask_features(case, np.zeros(shape, bool)).tolist()))  # noqa: B905
    assert empty.pop("volume_ml") == 0
    assert np.isnan(list(empty.values())).all()


def test_a_file_reads_back_and_a_damaged_one_is_refused() -> None:
    fusion = Fusion({"idh": IDH}, {0: calibration()})
    text = fusion_json(fusion)
    again = parse_fusion(text, "f")
    assert again.markers == fusion.markers
    assert set(again.calibrations) == {0}
    assert "leiden" not in text
    plain = json.loads(text)
    grade = {**plain["markers"]["idh"], "marker": "grade"}
    negative = {**plain["markers"]["idh"]["person"], "scale": [1.0, -1.0]}
    for bad in (
        {},
        {**plain, "markers": {}},
        {**plain, "markers": {"grade": grade}},
        {**plain, "markers": {"idh": grade}},
        {**plain, "markers": {"idh": {**plain["markers"]["idh"], "weights": [0.5, 0.5]}}},
        {**plain, "markers": {"idh": {**plain["markers"]["idh"], "person": negative}}},
    ):
        with pytest.raises(DataError, match="not a fusion"):
            parse_fusion(json.dumps(bad), "f")


def test_a_model_folder_with_a_fusion_is_of_a_later_format_and_one_without_as_before(
    tmp_path,
) -> None:
    weights = build_net(NetworkConfig("small", (4, 4, 4)), seed=3).state_dict()
    plain = write_model(tmp_path / "m", RECIPE, weights, {0: calibration()}, no_card)
    assert read_model(tmp_path / "m").fusion is None
    assert json.loads((tmp_path / "m" / RECORD).read_text())["format"] == 3
    id_ = add_fusion(tmp_path / "m", Fusion({"idh": IDH}, {0: calibration()}))
    model = read_model(tmp_path / "m")
    assert model.id == id_ != plain
    assert model.fusion is not None
    assert model.fusion.markers == {"idh": IDH}
    assert json.loads((tmp_path / "m" / RECORD).read_text())["format"] == 4
    again = add_fusion(tmp_path / "m", Fusion({"idh": IDH}, {0: calibration()}))
    assert again == id_
    with_card = add_fusion(tmp_path / "m", model.fusion, lambda id_: f"of {id_}")
    assert (with_card, read_model(tmp_path / "m").card) == (id_, f"of {id_}")
    (tmp_path / "m" / FUSION).write_text("{}")
    with pytest.raises(ModelError, match="was changed"):
        read_model(tmp_path / "m")


def test_what_leaves_the_fusion_out_says_so(tmp_path) -> None:
    alone = (
        "IDH mutation: of the network alone, without the age and sex that the model folder joins"
    )
    for seed in (3, 4):
        weights = build_net(NetworkConfig("small", (4, 4, 4)), seed=seed).state_dict()
        write_model(tmp_path / f"{seed}", RECIPE, weights, {}, no_card)
    without = read_model(tmp_path / "4")
    add_fusion(tmp_path / "3", Fusion({"idh": IDH}, {}))
    model = read_model(tmp_path / "3")
    for own, says in ((model, True), (without, False)):
        assert (alone in readme_of(own)) == says
        assert (alone in metadata_of(own)["description"]) == says
        assert (alone in properties_of(own)["outputs"]) == says
    combine_models([tmp_path / "3", tmp_path / "4"], tmp_path / "both")
    both = read_model(tmp_path / "both")
    assert both.fusion is None
    assert alone in both.card


def test_a_given_model_is_scored_with_and_without_age_and_sex() -> None:
    results = [dataclasses.replace(r, model="m", person=OLD) for r in answers(4, "s", 1)]
    mask = {f"{r.site}/{r.case}": np.array([60.0, 0.9]) for r in results}
    fusion = Fusion({"idh": IDH}, {0: calibration()})
    fused = fused_results(fusion, results, mask)
    for before, after in zip(results, fused, strict=True):
        own = np.array([before.probabilities["idh"]])
        expected = IDH.fuse(own, FusionInputs(np.array([[60.0, 0.9]]), [OLD]))[0]
        assert after.probabilities["idh"] == tuple(expected)
        assert after.probabilities["grade"] == before.probabilities["grade"]
        assert after.model == "m, with age and sex"
    calibrated = calibrated_fused(fusion, fused)
    assert {r.model for r in calibrated} == {"m, with age and sex, calibrated"}
    assert calibrated_fused(Fusion({"idh": IDH}, {}), fused) == ()
    assert fused_results(None, results, {}) == ()
    assert "Of 4 cases the age is known in 4 and the sex in 4" in inputs_note(results)


def test_a_study_names_what_a_fusion_needs() -> None:
    raw = {"name": "s", "data": {"root": "r", "train": ["a"], "external": ["b"]}}
    for models in (["fusion"], ["fusion", "age_sex"], ["fusion", "federated"]):
        with pytest.raises(StudyError, match='"fusion" joins age and sex to a network'):
            parse_study({**raw, "models": models})
    for network in ("federated", "pooled"):
        assert parse_study({**raw, "models": [network, "age_sex", "fusion"]})


def test_age_and_sex_come_from_the_table_or_the_options(tmp_path) -> None:
    hospital = tmp_path / "h"
    for name in ("sub-1", "sub-2"):
        anat = hospital / name / "anat"
        anat.mkdir(parents=True)
        (anat / f"{name}_T1w.nii.gz").write_bytes(b"")
    table = hospital / "participants.tsv"
    table.write_text("participant_id\tage\tsex\tidh\nsub-1\t61\tf\t?\nsub-2\tn/a\tn/a\tn/a\n")
    weights = build_net(NetworkConfig("small", (4, 4, 4)), seed=3).state_dict()
    write_model(tmp_path / "m", RECIPE, weights, {}, no_card)
    without = read_model(tmp_path / "m")
    add_fusion(tmp_path / "m", Fusion({"idh": IDH}, {}))
    model = read_model(tmp_path / "m")
    sites, _ = locate(hospital)
    one, two = sites[0].cases
    people = find_people(model, sites, 2, NOBODY)
    assert people.person(sites[0], one) == Person("F", 61.0)
    assert people.person(sites[0], two) == NOBODY
    given = find_people(model, sites, 1, Person(age=40.0))
    assert given.person(sites[0], one) == Person("F", 40.0)
    assert find_people(without, sites, 2, NOBODY).person(sites[0], one) == NOBODY
    with pytest.raises(DataError, match="uses no age and no sex"):
        find_people(without, sites, 1, OLD)
    with pytest.raises(DataError, match="there are 2 cases"):
        find_people(model, sites, 2, OLD)
    table.write_text("participant_id\tage\nsub-1\t61y\n")
    with pytest.raises(DataError, match=r"participants.tsv:2: age '61y' cannot be read"):
        find_people(model, sites, 2, NOBODY)
    assert parse_person("54", "F") == Person("F", 54.0)
    assert parse_person("", "") == NOBODY
    for age, sex in (("fifty", ""), ("", "x")):
        with pytest.raises(DataError, match="expected"):
            parse_person(age, sex)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("fusion")
    hospitals = [
        PhantomHospital("one", 9),
        PhantomHospital("two", 9),
        PhantomHospital("three", 4),
    ]
    path = write_study(root, hospitals, ["federated", "age_sex", "fusion"], data="holdout = 0.4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "small", THIN)
        outcome = run_study(load_study(path), root / "run", options=RunOptions(root / "store"))
        yield root, outcome


def rows(results, model: str):
    return {(r.role, r.site, r.case): r for r in results if r.model == model}


@pytest.mark.slow
def test_a_run_fuses_each_case_by_weights_that_its_patient_did_not_enter(finished) -> None:
    _, outcome = finished
    network, fused = rows(outcome.results, "federated"), rows(outcome.results, "fusion")
    assert network.keys() == fused.keys()
    own = outcome.fusions.by_fold[1, "external"]
    held = [r for r in network.values() if r.role == "holdout"]
    assert sum(own.markers["idh"].cases) == sum(r.labels["idh"] is not UNKNOWN for r in held) > 0
    for key, result in fused.items():
        plain = network[key]
        weights = own.without[fold_of(plain.patient)] if key[0] == "holdout" else own.markers
        inputs = FusionInputs(own.mask[f"{key[1]}/{key[2]}"][None], [plain.person])
        expected = weights["idh"].fuse(np.array([plain.probabilities["idh"]]), inputs)[0]
        assert result.probabilities["idh"] == pytest.approx(tuple(expected))
        assert result.probabilities["idh"] != plain.probabilities["idh"]
        assert result.probabilities["grade"] == plain.probabilities["grade"]
        assert (result.dice, result.labels, result.person) == (
            plain.dice, plain.labels, plain.person
        )  # fmt: skip
    for number, weights in enumerate(own.without):
        outside = [
            r for r in held if fold_of(r.patient) != number and r.labels["idh"] is not UNKNOWN
        ]
        assert sum(weights["idh"].cases) == len(outside)
    assert {r.model for r in outcome.rows if r.metric == "auc"} >= {"federated", "fusion"}


@pytest.mark.slow
def test_validation_scores_the_fusion_as_the_run_does(finished) -> None:
    root, outcome = finished
    (folder,) = (root / "run").glob("models/seed-1/external/federated/model")
    options = gliofed.ValidateOptions(store=root / "store", bootstrap=100)
    found = gliofed.validate(folder, [root / "hospitals" / "three"], root / "validated", options)
    name = f"{read_model(folder).recipe.name} {read_model(folder).id[:8]}"
    for own, other in (("", "federated"), (", with age and sex", "fusion")):
        values = {
            (r.task, r.metric): r.value
            for r in found.rows
            if (r.model, r.site) == (name + own, "three")
        }
        expected = {
            (r.task, r.metric): r.value
            for r in outcome.rows
            if (r.model, r.site, r.role) == (other, "three", "external")
        }
        assert values == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert any(r.model == f"{name}, with age and sex, calibrated" for r in found.rows)
    assert any("Of 4 cases the age is known in" in note for note in found.notes)


@pytest.mark.slow
def test_a_prediction_names_the_inputs_and_an_unknown_age_costs_nothing(finished, tmp_path) -> None:
    root, outcome = finished
    (folder,) = (root / "run").glob("models/seed-1/external/federated/model")
    model = read_model(folder)
    assert model.fusion is not None
    assert model.fusion.markers == outcome.fusions.by_fold[1, "external"].markers
    assert set(model.fusion.calibrations) <= set(model.calibrations)
    assert model.fusion.calibrations
    source = next(p for p in sorted((root / "hospitals" / "three").glob("sub-*")) if p.is_dir())
    options = gliofed.PredictOptions(model=folder, store=tmp_path / "store")

    def predicted(age: str, sex: str):
        chosen = dataclasses.replace(options, age=age, sex=sex)
        (status,) = gliofed.predict(str(source), tmp_path / "out", chosen)
        (row,) = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
        answer = json.loads(next((tmp_path / "out").glob("*/answer.json")).read_text())
        return status.status, row, answer

    status, alone, alone_answer = predicted("", "")
    assert (status, alone["inputs"]) == ("predicted", "")
    assert "from the scans alone; age and sex are unknown" in alone_answer["inputs"]
    status, old, answer = predicted("80", "M")
    assert (status, old["inputs"]) == ("predicted", "age+sex")
    assert answer["inputs"] == "IDH mutation: from the scans, age 80 and sex M."
    assert answer["markers"]["idh"]["own"] == alone_answer["markers"]["idh"]["own"]
    assert predicted("80", "M")[0] == "skipped"
    status, young, answer = predicted("20", "")
    assert (status, young["inputs"]) == ("predicted", "age")
    assert "sex is unknown and counts as the mean" in answer["inputs"]
    idh = model.fusion.markers["idh"]
    slope = idh.person.slopes[0] * idh.weights[2]
    assert (float(young["idh_p_mutant"]) > float(old["idh_p_mutant"])) == (slope < 0)
    assert predicted("", "")[1] == alone
