"""A given model, and another program's predictions, evaluated on labelled cases."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import write_hospital
from small_study import write_study

import gliofed
from gliofed import ValidateOptions
from gliofed.data.phantom import PhantomHospital
from gliofed.errors import DataError, GliofedError, ModelError
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.recalibration import recalibrate, write_recalibrated
from gliofed.experiments.run import run_study
from gliofed.models.folder import read_model, write_model
from gliofed.study import load_study
from gliofed.types import Labels

pytestmark = pytest.mark.slow
FEW = ValidateOptions(bootstrap=100)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished study of two training hospitals and an external one."""
    root = tmp_path_factory.mktemp("study")
    hospitals = [PhantomHospital(name, n) for name, n in (("one", 6), ("two", 2), ("three", 4))]
    study = write_study(root, hospitals, ("federated",), epochs=1)
    torch.set_num_threads(1)
    run_study(load_study(study), root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def model(run) -> Path:
    return next(run.glob("models/*/*/federated/model"))


@pytest.fixture(scope="module")
def hospital(run) -> Path:
    study = load_study(run / "study.toml")
    return study.data.root / "three"


@pytest.fixture(scope="module")
def validated(run, model, hospital, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("validated")
    options = dataclasses.replace(FEW, store=run / "store")
    found = gliofed.validate(model, [hospital], out, options)
    assert found.complete
    return out


def scores(folder: Path, model: str) -> dict[tuple[str, ...], dict]:
    rows = json.loads((folder / "scores.json").read_text())
    return {
        (r["site"], r["task"], r["metric"]): r
        for r in rows
        if (r["model"], r["role"]) == (model, "external")
    }


def test_figures_equal_those_of_the_run(run, model, validated) -> None:
    name = f"{read_model(model).recipe.name} {read_model(model).id[:8]}"
    for suffix in ("", ", calibrated"):
        ours, theirs = scores(validated, name + suffix), scores(run, "federated" + suffix)
        assert ours.keys() == theirs.keys()
        for key, row in theirs.items():
            for figure in ("n", "value", "low", "high"):
                assert ours[key][figure] == pytest.approx(row[figure], abs=1e-9), (key, figure)
    page = (validated / "report.html").read_text()
    assert "cannot be verified" in page
    assert "not a medical device" in page.lower()
    assert "Best case: three/" in page


def test_a_second_start_predicts_nothing_again(run, model, hospital, validated, monkeypatch):
    monkeypatch.setattr("gliofed.experiments.model_predictions.score_case", None)
    before = (validated / "scores.csv").read_bytes()
    options = dataclasses.replace(FEW, store=run / "store")
    gliofed.validate(model, [hospital], validated, options)
    assert (validated / "scores.csv").read_bytes() == before


def peer(folder: Path, hospital: Path, cases: list[dict], shift: int = 1) -> Path:
    """Masks moved by `shift` voxels, and a table of probabilities."""
    folder.mkdir(parents=True)
    for row in cases:
        mask = next(hospital.glob(f"derivatives/*/sub-{row['case']}/anat/*mask.nii.gz"))
        image = nib.load(mask)
        moved = np.roll(np.asarray(image.dataobj), shift, axis=0)
        nib.save(nib.Nifti1Image(moved, image.affine), folder / f"{row['case']}.nii.gz")
    lines = ["case,idh_p"] + [f"{row['case']},{row['idh_p_mutant']}" for row in cases]
    (folder / "predictions.csv").write_text("\n".join(lines))
    return folder


def predictions(folder: Path) -> list[dict]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_masks_and_table_of_another_program_score_as_by_score(
    hospital, validated, tmp_path
) -> None:
    cases = predictions(validated)
    folder = peer(tmp_path / "peer", hospital, cases)
    found = gliofed.validate(folder, [hospital], tmp_path / "out", FEW)
    assert found.complete
    for row in predictions(tmp_path / "out"):
        mask = next(hospital.glob(f"derivatives/*/sub-{row['case']}/anat/*mask.nii.gz"))
        truth = np.asarray(nib.load(mask).dataobj) > 0
        moved = np.roll(truth, 1, axis=0)
        dice = 2 * (truth & moved).sum() / (truth.sum() + moved.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-9)
    table = gliofed.score([tmp_path / "out/predictions.csv"], tmp_path / "scored", bootstrap=100)
    assert table == found.rows
    idh = scores(tmp_path / "out", "peer")["all", "idh", "auc"]
    own = next(n for n in {r["model"] for r in cases})
    assert idh["value"] == pytest.approx(scores(validated, own)["all", "idh", "auc"]["value"])


def test_predictions_that_lack_or_are_of_no_case_are_named(hospital, validated, tmp_path) -> None:
    cases = predictions(validated)
    folder = peer(tmp_path / "peer", hospital, cases[1:])
    shutil.copy(folder / f"{cases[1]['case']}.nii.gz", folder / "stranger.nii.gz")
    found = gliofed.validate(folder, [hospital], tmp_path / "out", FEW)
    assert not found.complete
    assert found.notes == (
        f"1 of {len(cases)} cases have no prediction: three/{cases[0]['case']}.",
        "1 masks are of none of these cases: stranger.nii.gz.",
    )
    page = (tmp_path / "out/report.html").read_text()
    assert f"three/{cases[0]['case']}" in page


def test_the_folder_of_predict_is_read(model, hospital, validated, tmp_path) -> None:
    """Its masks are on the grid of each scan; those on the expert's grid count."""
    statuses = gliofed.predict(str(hospital), tmp_path / "predicted", gliofed.PredictOptions(model))
    assert all(s.complete for s in statuses)
    found = gliofed.validate(tmp_path / "predicted", [hospital], tmp_path / "out", FEW)
    assert found.complete
    ours = {r["case"]: float(r["dice"]) for r in predictions(tmp_path / "out")}
    theirs = {r["case"]: float(r["dice"]) for r in predictions(validated)}
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_what_cannot_be_validated_is_one_error(model, hospital, validated, tmp_path) -> None:
    bare = write_hospital(tmp_path / "bare", {"a": ("n/a",) * 4})
    shutil.rmtree(bare / "derivatives")
    with pytest.raises(DataError, match="none of 1 cases has a mask or a known marker"):
        gliofed.validate(model, [bare], tmp_path / "out", FEW)
    with pytest.raises(DataError, match="two data sets are named 'three'"):
        gliofed.validate(model, [hospital, hospital], tmp_path / "out", FEW)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no prediction for three/"):
        gliofed.validate(tmp_path / "empty", [hospital], tmp_path / "out", FEW)
    options = dataclasses.replace(FEW, recalibrated=tmp_path / "new")
    with pytest.raises(ModelError, match="only one can be recalibrated"):
        gliofed.validate(tmp_path / "empty", [hospital], tmp_path / "out", options)
    cases = predictions(validated)
    wrong = peer(tmp_path / "wrong", hospital, cases)
    other = {"wildtype": "mutant", "mutant": "wildtype"}
    lines = [f"{r['case']},{other[r['idh_true']]},0.5" for r in cases if r["idh_true"]]
    (wrong / "predictions.csv").write_text("\n".join(["case,idh_true,idh_p", *lines]))
    with pytest.raises(DataError, match="the data set"):
        gliofed.validate(wrong, [hospital], tmp_path / "out", FEW)
    coarse = peer(tmp_path / "coarse", hospital, cases)
    path = coarse / f"{cases[0]['case']}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::2], image.affine), path)
    with pytest.raises(DataError, match="voxels along the axes of the expert mask"):
        gliofed.validate(coarse, [hospital], tmp_path / "out", FEW)


def shifted(model: str, count: int) -> list[CaseResult]:
    """A marker whose probability is too high by far, of patients half of whom are mutant."""
    out = []
    for number in range(count):
        mutant = number % 2 == 1
        p = 0.99 - 0.3 * (not mutant) * (number % 4 == 0)
        probabilities = {
            "idh": (1 - p, p), "codel_1p19q": (0.9999, 0.0001), "mgmt": (0.5, 0.5),
            "grade": (0.2, 0.3, 0.5),
        }  # fmt: skip
        out.append(
            CaseResult(model, 1, "external", "external", f"c{number}", "north", f"p{number}",
                       Labels({"idh": "mutant" if mutant else "wildtype"}), probabilities,
                       None, None, None, None)
        )  # fmt: skip
    return out


def test_recalibration_is_cross_validated_and_written_as_a_new_model(model, tmp_path) -> None:
    trained = dataclasses.replace(read_model(model), recipe=dataclasses.replace(
        read_model(model).recipe, untrained=()))  # fmt: skip
    results = shifted("m", 60)
    found = recalibrate(trained, results)
    assert [r.case for r in found.results] == [r.case for r in results]
    mean = np.mean([r.probabilities["idh"][1] for r in found.results])
    assert mean == pytest.approx(0.5, abs=0.05)  # it was 0.91 to 0.99
    changed = [*results[:-1], dataclasses.replace(results[-1], labels=Labels({"idh": "wildtype"}))]
    again = recalibrate(trained, changed)
    last, same = found.results[-1], again.results[-1]
    assert same.probabilities == last.probabilities  # its own label has no part in it
    id_ = write_recalibrated(trained, found, tmp_path / "new")
    new = read_model(tmp_path / "new")
    assert new.id == id_ != trained.id
    assert all(torch.equal(new.weights[k], v) for k, v in trained.weights.items())
    assert new.calibrations[0].scalings == found.calibration.scalings
    assert "fitted on 60 cases of north" in new.card
    assert trained.id in new.card


def test_recalibration_needs_five_patients_of_each_class(model) -> None:
    trained = read_model(model)
    assert recalibrate(trained, shifted("m", 10)).results
    with pytest.raises(DataError, match="needs 5 patients of each class"):
        recalibrate(trained, shifted("m", 9))


def test_a_model_prepared_by_other_steps_is_refused(model, hospital, tmp_path) -> None:
    trained = read_model(model)
    recipe = dataclasses.replace(trained.recipe, steps="other")
    write_model(tmp_path / "other", recipe, trained.weights, {}, lambda _: "")
    with pytest.raises(GliofedError, match="prepared by the steps 'other'"):
        gliofed.validate(tmp_path / "other", [hospital], tmp_path / "out", FEW)
