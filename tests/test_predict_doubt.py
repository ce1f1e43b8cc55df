"""What is doubtful about a case reaches the user before the prediction does."""

import csv
import dataclasses
import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_maker import SIEMENS, write_series
from malformed import InProcess, at, framed, shifted, write_healthy
from small_model import STUDY, make_model

import gliofed
from gliofed.errors import DataError, ModelError
from gliofed.inference import batch
from gliofed.inference.answer_files import ANSWER
from gliofed.inference.batch import TABLE, BatchOptions, CaseStatus, predict_all
from gliofed.reporting.case.answer_text import model_input
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.types import Sequence

CPU = Device(torch.device("cpu"), bf16=False)


@pytest.fixture(autouse=True)
def _reader(monkeypatch) -> None:
    monkeypatch.setattr(batch, "SafeReader", InProcess)


@pytest.fixture
def scans(tmp_path):
    """One healthy case."""
    root = write_healthy(tmp_path / "scans")
    shutil.rmtree(root / "north/sub-02")
    return root


def answered(model, scans, out, **over) -> CaseStatus:
    options = BatchOptions(out, out / "store", **over)
    (status,) = predict_all(scans, gliofed.read_model(model), options, CPU, NO_PROGRESS)
    return status


def row(out) -> dict[str, str]:
    (only,) = csv.DictReader((out / TABLE).read_text().splitlines())
    return only


@pytest.mark.process
def test_warnings_and_unused_scans_reach_screen_table_and_page(scans, tmp_path) -> None:
    plain, enhanced = at(scans, "T1"), at(scans, "T1CE")
    swapped = plain.read_bytes()
    plain.write_bytes(enhanced.read_bytes())
    enhanced.write_bytes(swapped)
    framed(scans, "T2", shifted(5), shifted(5), sform_code=4)
    extra = plain.with_name("sub-01_tirm.nii.gz")
    shutil.copy(at(scans, "FLAIR"), extra)
    out = tmp_path / "out"
    case = answered(make_model(tmp_path / "m"), scans, out)
    assert case.status == "predicted"
    assert not case.complete
    for found in (case.reasons, json.loads((case.folder / ANSWER).read_text())["quality"]):
        assert any("T1 and T1 with contrast may be swapped" in line for line in found)
        assert any("sub-01_tirm.nii.gz: may be FLAIR and is not used" in line for line in found)
        assert any("T2 in MNI152 space, FLAIR in scanner coordinates" in line for line in found)
    assert "may be swapped" in row(out)["quality"]
    assert "different frames of reference" in row(out)["quality"]
    (page,) = gliofed.report(out)
    html = page.read_text()
    for doubt in ("may be swapped", "sub-01_tirm.nii.gz", "different frames of reference"):
        assert html.index(doubt) < html.index('id="images"')


@pytest.mark.process
def test_a_later_session_is_told_and_the_prediction_is_complete(scans, tmp_path) -> None:
    later = at(scans, "FLAIR").parents[1] / "ses-02/anat/sub-01_ses-02_FLAIR.nii.gz"
    later.parent.mkdir(parents=True)
    shutil.copy(at(scans, "FLAIR"), later)
    case = answered(make_model(tmp_path / "m"), scans, tmp_path / "out")
    line = "sub-01: anat without a session is used as preoperative, the first; not used: ses-02"
    assert (case.status, case.complete, case.reasons) == ("predicted", True, (line,))
    assert row(tmp_path / "out")["quality"] == line


@pytest.mark.process
def test_a_failed_quality_check_refuses_a_prediction_unless_accepted(scans, tmp_path) -> None:
    strict = dataclasses.replace(STUDY.quality, brain_litres=(5.0, 9.0))
    model, out = make_model(tmp_path / "m", quality=strict), tmp_path / "out"
    case = answered(model, scans, out)
    assert case.status == "refused"
    assert case.reasons[0].startswith("the brain mask has ")
    assert case.reasons[0].endswith("or predict them as they are with --accept-quality")
    assert not (case.folder / ANSWER).exists()
    case = answered(model, scans, out, accept_quality=True)
    assert case.status == "predicted"
    assert row(out)["quality"].startswith("the brain mask has ")


@pytest.mark.process
def test_other_scans_are_predicted_again_where_nobody_changed_the_masks(scans, tmp_path) -> None:
    model, out = make_model(tmp_path / "m"), tmp_path / "out"
    at(scans, "T1CE").rename(tmp_path / "t1ce.nii.gz")  # its series was not decided yet
    first = answered(model, scans, out)
    assert json.loads((first.folder / ANSWER).read_text())["missing"] == ["T1CE"]
    shutil.copy(tmp_path / "t1ce.nii.gz", at(scans, "T1CE"))
    again = answered(model, scans, out)
    assert again.status == "predicted"
    assert json.loads((first.folder / ANSWER).read_text())["missing"] == []
    mask = next(first.folder.glob("*FLAIR_mask.nii.gz"))
    drawn = nib.load(mask)
    nib.save(nib.Nifti1Image(np.asarray(drawn.dataobj) * 0, drawn.affine), mask)
    at(scans, "T1CE").unlink()
    refused = answered(model, scans, out)
    assert refused.status == "refused"
    assert "or replace it with --overwrite" in refused.reasons[0]


@pytest.mark.process
def test_a_sequence_that_no_training_case_had_is_not_used(scans, tmp_path) -> None:
    model = make_model(tmp_path / "m", trained_with=("T1", "T1CE", "FLAIR"))
    case = answered(model, scans, tmp_path / "out")
    note = "Not used: T2, since no training case of the model had it"
    assert (case.status, case.complete, case.reasons) == ("predicted", True, (note,))
    with_t2 = row(tmp_path / "out")
    assert with_t2["sequences"] == "T1+T1CE+FLAIR"
    assert list(case.folder.glob("*desc-T2_mask.nii.gz"))
    (page,) = gliofed.report(tmp_path / "out")
    assert f"{note}." in page.read_text()
    at(scans, "T2").rename(tmp_path / "t2.nii.gz")
    answered(model, scans, tmp_path / "less")
    without_t2 = row(tmp_path / "less")
    assert without_t2["quality"] == ""
    assert {k: v for k, v in without_t2.items() if k != "quality"} == {
        k: v for k, v in with_t2.items() if k != "quality"
    }
    for name in ("T1", "T1CE", "FLAIR"):
        at(scans, name).unlink()
    shutil.copy(tmp_path / "t2.nii.gz", at(scans, "T2"))
    (refused,) = answered(model, scans, tmp_path / "none").reasons
    assert "has T2 and the model was trained with T1, T1CE, FLAIR only" in refused


def test_results_are_not_written_among_the_scans(scans, tmp_path) -> None:
    model = make_model(tmp_path / "m")
    for out in (scans, scans / "predicted"):
        with pytest.raises(DataError, match="lies in the folder of the scans"):
            gliofed.predict(str(scans), out, gliofed.PredictOptions(model))
        assert not (scans / "predicted").exists()


def test_the_folder_above_a_model_suggests_the_model(tmp_path) -> None:
    make_model(tmp_path / "run/models/federated")
    with pytest.raises(ModelError, match=r"give .*/run/models/federated$"):
        gliofed.read_model(tmp_path / "run")
    make_model(tmp_path / "run/models/pooled")
    with pytest.raises(ModelError, match="federated or another of 2 below it"):
        gliofed.read_model(tmp_path / "run")
    with pytest.raises(ModelError, match="give the folder that a run wrote"):
        gliofed.read_model(tmp_path / "nothing")


def test_a_folder_without_predictions_is_not_served(tmp_path) -> None:
    with pytest.raises(DataError, match="has no predicted case; give the --out"):
        gliofed.view(tmp_path)


def test_a_model_states_the_input_it_was_trained_for(tmp_path) -> None:
    assert "whole head is extracted with deepbet" in model_input("stripped")
    assert model_input("hd-bet").startswith("whole heads")


@pytest.mark.process
def test_a_head_is_stripped_for_a_model_of_stripped_scans(scans, tmp_path, monkeypatch) -> None:
    asked = []
    real = batch.CasePreparer

    def recorded(request, processes):
        asked.append((request.steps.brain, request.steps.register))
        return real(dataclasses.replace(request, steps=STUDY.prepare), processes)

    monkeypatch.setattr(batch, "CasePreparer", recorded)
    monkeypatch.setattr(
        batch._BatchPrediction,
        "_check",
        lambda *_: [batch.Finding("SET-NOT-STRIPPED", "north/01", "", "a skull on 90% of lines")],
    )
    case = answered(make_model(tmp_path / "m"), scans, tmp_path / "out")
    # the model's own settings start first, before the scans are looked at
    assert asked == [("stripped", False), ("deepbet", True)]
    assert case.reasons == (
        "The scans show a head (a skull on 90% of lines) and the model was trained on "
        "skull-stripped scans: the brain was extracted with deepbet and the sequences were "
        "registered; check both on the images",
    )


@pytest.fixture(scope="module")
def from_dicom(tmp_path_factory) -> CaseStatus:
    """Predicted, with its page; one series needs a decision. `in`, `m` and `out` lie side by
    side."""
    root = tmp_path_factory.mktemp("hospital")
    for number, (name, style) in enumerate(SIEMENS.items(), start=1):
        if name != Sequence.T1CE:
            write_series(root / "in", style, number=number)
    model = make_model(root / "m", synthetic=True)
    (case,) = gliofed.predict(str(root / "in"), root / "out", gliofed.PredictOptions(model))
    gliofed.report(root / "out")
    return case


@pytest.mark.process
def test_no_path_of_this_machine_is_in_a_file_that_is_sent_on(from_dicom) -> None:
    """All but the tables and the store, which stay at the site by their purpose."""
    out = from_dicom.folder.parent
    stay = {out / "hospital-private", out / "store"}
    files = [p for p in out.rglob("*") if p.is_file() and not stay & set(p.parents)]
    names = {p.name for p in files}
    assert {TABLE, "report.html", f"{from_dicom.folder.name}_report.dcm"} < names
    assert {p.suffix for p in files} >= {".dcm", ".gz", ".json", ".csv", ".html"}
    for path in files:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        assert str(out.parent).encode() not in data, path.name
        assert str(Path.home()).encode() not in data, path.name


@pytest.mark.process
def test_the_dicom_report_states_phantoms_missing_sequences_and_the_page_s_volume(
    from_dicom,
) -> None:
    case, out = from_dicom, from_dicom.folder.parent
    report = pydicom.dcmread(case.folder / f"{case.folder.name}_report.dcm")
    said = " ".join(str(e.value) for e in report.iterall() if e.keyword == "TextValue")
    assert "trained on synthetic phantoms only" in said
    missing = json.loads((case.folder / ANSWER).read_text())["missing"]
    assert "T1CE" in missing
    assert f"Missing sequences: {', '.join(missing)}." in said
    assert not case.complete  # a T1 without a word of contrast needs a decision
    decide = "decide it in hospital-private/decisions.tsv and run the same command again"
    assert any(reason.endswith(decide) for reason in case.reasons)
    assert decide in row(out)["quality"]
    assert decide in said
    volume = float(row(out)["volume_ml"])
    assert volume > 0
    numbers = [float(e.value) for e in report.iterall() if e.keyword == "NumericValue"]
    assert any(n == pytest.approx(volume, rel=1e-4) for n in numbers), numbers
