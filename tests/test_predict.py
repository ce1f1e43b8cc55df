"""`gliofed predict`: cases from their files to what is written of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from crashing_cases import crashing
from dicom_maker import SIEMENS, write_series
from malformed import InProcess, write_healthy
from malformed_corpus import CORPUS
from recorded_progress import RecordedProgress
from small_model import make_model
from typer.testing import CliRunner

import gliofed
from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.cli.main import app
from gliofed.data.store import PreparedStore
from gliofed.dicom.seg import read_segmentation
from gliofed.errors import DataError, ModelError, StoreError
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.inference import batch
from gliofed.inference.answer_files import ANSWER, MAPS, read_answer, read_provenance, write_answer
from gliofed.inference.batch import TABLE, BatchOptions, predict_all
from gliofed.inference.case import answer_case
from gliofed.inference.case_content import content_of
from gliofed.inference.forward import DeviceNetwork, predict, predict_with_uncertainty
from gliofed.inference.occlusion import MAX_PASSES
from gliofed.markers import MARKERS
from gliofed.models.network import build_net
from gliofed.preprocessing.cases import prepare_one
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import CalibrationConfig, NetworkConfig
from gliofed.types import SEQUENCES, UNKNOWN, Case, Sequence
from gliofed.validation.codes import BY_ID

CPU = Device(torch.device("cpu"), bf16=False)


def calibration(slope: float) -> Calibration:
    found = fit_calibration(local_exchange({"a": CalibrationCases(())}), CalibrationConfig())
    scalings = {
        m: dataclasses.replace(s, kind="temperature", slope=slope)
        for m, s in found.scalings.items()
    }
    return dataclasses.replace(found, scalings=scalings)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    fitted = {0: calibration(0.5), 2: calibration(0.1)}
    return make_model(tmp_path_factory.mktemp("model") / "m", calibrations=fitted)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory) -> Path:
    return write_healthy(tmp_path_factory.mktemp("healthy") / "data")


@pytest.fixture(autouse=True)
def _reader(monkeypatch) -> None:
    monkeypatch.setattr(batch, "SafeReader", InProcess)


def cases_of(root: Path) -> tuple[Case, ...]:
    return gliofed.inspect(root / "north").cases


def answered(model: Path, scans: Path, out: Path, **over: object) -> tuple[gliofed.CaseStatus, ...]:
    wanted = BatchOptions(out, out / "store", **over)
    return predict_all(scans, gliofed.read_model(model), wanted, CPU, NO_PROGRESS)


@pytest.mark.process
def test_every_case_has_its_answer_and_its_outline_on_each_scan(model, healthy, tmp_path) -> None:
    statuses = answered(model, healthy, tmp_path)
    assert [f.status for f in statuses] == ["predicted"] * 2
    for case in statuses:
        plain = json.loads((case.folder / ANSWER).read_text())
        assert plain["model"]["id"] == gliofed.read_model(model).id
        assert plain["missing"] == []
        assert set(plain["markers"]) == {m.id for m in MARKERS}
        for marker in MARKERS:
            own = plain["markers"][marker.id]
            assert sum(own["own"]) == pytest.approx(1)
            assert sum(own["probabilities"]) == pytest.approx(1)
            pairs = zip(own["low"], own["probabilities"], own["high"], strict=True)
            assert all(0 <= low < high <= 1 for low, _, high in pairs)
        for sequence in SEQUENCES:
            (mask,) = case.folder.glob(f"*_desc-{sequence.value}_mask.nii.gz")
            (scan,) = healthy.glob(f"north/{case.folder.name}/anat/*{ENDINGS[sequence]}.nii.gz")
            drawn, image = nib.load(mask), nib.load(scan)
            assert drawn.shape == image.shape
            assert np.allclose(drawn.affine, image.affine, atol=1e-4)
            assert set(np.unique(drawn.get_fdata())) == {0, 1}


ENDINGS = {
    Sequence.T1: "sub-0?_T1w", Sequence.T1CE: "ce-*_T1w", Sequence.T2: "_T2w",
    Sequence.FLAIR: "_FLAIR",
}  # fmt: skip


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_what_is_whole_is_kept_and_another_model_writes_over_nothing(
    model, healthy, tmp_path, monkeypatch
) -> None:
    first = answered(model, healthy, tmp_path)
    before = {p: p.read_bytes() for f in first for p in f.folder.iterdir()}
    assert [f.status for f in answered(model, healthy, tmp_path)] == ["skipped"] * 2
    with monkeypatch.context() as patch:
        patch.setattr(batch, "write_answer", killed)
        with pytest.raises(KeyboardInterrupt):
            answered(model, healthy, tmp_path, overwrite=True, explain=True)
    again = answered(model, healthy, tmp_path)  # what a killed start left needs no leave
    assert [f.status for f in again] == ["predicted", "skipped"]
    assert {p: p.read_bytes() for f in first for p in f.folder.iterdir()} == before
    other = make_model(tmp_path / "other", seed=2)
    refused = answered(other, healthy, tmp_path)
    assert [f.status for f in refused] == ["refused"] * 2
    assert "and may have been corrected" in refused[0].reasons[0]
    assert {p: p.read_bytes() for f in first for p in f.folder.iterdir()} == before
    assert [f.status for f in answered(other, healthy, tmp_path, overwrite=True)] == [
        "predicted"
    ] * 2


@pytest.mark.process
def test_two_hospitals_may_have_subjects_of_one_name(model, healthy, tmp_path) -> None:
    root = tmp_path / "data"
    for site in ("north", "south"):
        shutil.copytree(healthy / "north", root / site)
    shutil.rmtree(root / "south/sub-02")
    statuses = answered(model, root, tmp_path / "out")
    assert [f.status for f in statuses] == ["predicted"] * 3
    assert {f.folder.name for f in statuses} == {"north_sub-01", "south_sub-01", "sub-02"}
    assert {read_answer(f.folder).case for f in statuses} == {f.folder.name for f in statuses}
    (tmp_path / "out/sub-02" / ANSWER).write_text("{")
    answered(model, root / "south", tmp_path / "out")
    table = (tmp_path / "out" / TABLE).read_text()
    assert "north_sub-01" in table
    assert "sub-02" not in table


@pytest.mark.process
def test_missing_sequences_are_said_and_calibrated_for(model, healthy, tmp_path) -> None:
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    for path in root.glob("north/sub-01/anat/*"):
        if "T1w" in path.name:
            path.unlink()
    short, whole = answered(model, root, tmp_path / "out")
    plain = json.loads((short.folder / ANSWER).read_text())
    assert plain["missing"] == ["T1", "T1CE"]
    own = plain["markers"]["mgmt"]
    logit = np.log(own["own"][1] / own["own"][0])
    assert np.log(own["probabilities"][1] / own["probabilities"][0]) == pytest.approx(0.1 * logit)
    plain = json.loads((whole.folder / ANSWER).read_text())
    own = plain["markers"]["mgmt"]
    logit = np.log(own["own"][1] / own["own"][0])
    assert np.log(own["probabilities"][1] / own["probabilities"][0]) == pytest.approx(0.5 * logit)


@pytest.mark.process
def test_a_calibration_on_fuller_cases_is_said_to_be_so(healthy, tmp_path) -> None:
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    for ending in ("T2w", "FLAIR"):
        next(root.glob(f"north/sub-01/anat/*_{ending}.nii.gz")).unlink()
    full = make_model(tmp_path / "m", calibrations={1: calibration(0.5)})
    short, whole = (read_answer(f.folder) for f in answered(full, root, tmp_path / "out"))
    assert "lacked at most 1 of the four sequences and this one lacks 2" in short.source.calibrated
    assert whole.source.calibrated
    assert "lacked" not in whole.source.calibrated


@pytest.mark.process
def test_a_model_without_calibration_says_so_and_names_no_type(healthy, tmp_path) -> None:
    plain_model = make_model(tmp_path / "m")
    (first, _) = answered(plain_model, healthy, tmp_path / "out")
    plain = json.loads((first.folder / ANSWER).read_text())
    assert plain["model"]["calibrated"] == ""
    assert plain["markers"]["idh"]["left"] is None
    assert plain["markers"]["idh"]["kept"] is None
    assert plain["integrated"]["answer"] == "not determinable"


BAD = {
    s.code: s for s in CORPUS
    if s.code.startswith(("FILE-", "NII-", "VOX-")) and BY_ID[s.code].severity == "error"
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("spoilt", BAD.values(), ids=lambda s: f"{s.code}: {s.name}")
def test_a_spoilt_case_is_refused_in_one_line_each_and_the_other_is_answered(
    spoilt, model, healthy, tmp_path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    spoilt.make(root)
    try:
        statuses = answered(model, root, tmp_path / "out")
    except DataError as error:  # nothing at all is left
        assert "\n" not in str(error)
        return
    refused = [f for f in statuses if f.status == "refused"]
    for case in refused:
        assert case.reasons
        assert all("\n" not in r for r in case.reasons)
        assert not case.folder.exists()
    unused = all("mask" in p.name or p.suffix == ".tsv" for p in _changed(healthy, root))
    assert refused or unused, spoilt.code
    assert any(f.status == "predicted" for f in statuses) or len(statuses) == len(refused) == 1


@pytest.mark.process
def test_a_case_that_crashes_its_process_is_refused_and_the_others_are_answered(
    model, healthy, tmp_path
) -> None:
    with crashing("sub-01"):
        one, other = answered(model, healthy, tmp_path)
    assert (one.status, other.status) == ("refused", "predicted")
    assert "sub-01: its process crashed (SIGSEGV)" in one.reasons[0]
    assert not one.folder.exists()
    assert (other.folder / ANSWER).is_file()
    assert [f.status for f in answered(model, healthy, tmp_path)] == ["predicted", "skipped"]


def _changed(one: Path, other: Path) -> list[Path]:
    names = {p.relative_to(r) for r in (one, other) for p in r.rglob("*") if p.is_file()}
    return [n for n in names if _begins(one / n) != _begins(other / n)]


def _begins(path: Path) -> tuple[int, bytes]:
    """Size and first mebibyte: some have a size that no disk holds."""
    if not path.is_file():
        return -1, b""
    with path.open("rb") as file:
        return path.stat().st_size, file.read(2**20)


def test_uncertainty_leaves_the_prediction_as_it_is_and_is_the_same_each_time(
    make_prepared,
) -> None:
    net = build_net(NetworkConfig("small", (2, 2, 2)), seed=4)
    own = make_prepared("a", {}, "one")
    for mirror, passes in ((True, 2), (False, 1)):
        plain = predict(net, own, CPU, mirror)
        answer, uncertainty = predict_with_uncertainty(net, own, CPU, mirror, samples=51)
        again = predict_with_uncertainty(net, own, CPU, mirror, samples=51)[1]
        assert np.array_equal(answer.probability, plain.probability)
        assert answer.markers == plain.markers
        assert len(uncertainty.maps) == passes
        for marker in MARKERS:
            drawn = uncertainty.markers[marker.id]
            assert drawn.shape == (51, len(marker.classes))
            assert drawn.sum(1) == pytest.approx(np.ones(51))
            assert drawn.std(0).min() > 0
            assert np.array_equal(drawn, again.markers[marker.id])
    assert not net.training
    assert not any(m.training for m in net.modules())


@pytest.mark.slow
def test_an_answer_comes_back_from_the_disk_as_it_was(model, healthy, tmp_path) -> None:
    own = gliofed.read_model(model)
    store = PreparedStore(tmp_path / "store")
    case = cases_of(healthy)[0]
    prepared = prepare_one(case, own.recipe.grid, own.recipe.prepare, store)[0]
    progress = RecordedProgress()
    network = DeviceNetwork(own.net(), CPU)
    found = answer_case(own, network, prepared, True, progress)
    content = content_of(found, prepared)
    counts = progress.counts
    assert counts[-1][0] == counts[-1][1] == len(counts) <= MAX_PASSES
    folder = tmp_path / "answers" / case.id
    write_answer(content, prepared, tmp_path / "store", folder)
    again = read_answer(folder)
    before, after = (dataclasses.asdict(c) for c in (content, again))
    assert plain_of(before) == plain_of(after)
    assert all(w.regions is not None and w.sequences for w in again.occlusions)
    (tmp_path / "answers").rename(tmp_path / "moved")
    (tmp_path / "store").rename(tmp_path / "other")
    moved = tmp_path / "moved" / case.id
    with pytest.raises(StoreError, match="its prepared scans are not in"):
        read_answer(moved)
    assert plain_of(dataclasses.asdict(read_answer(moved, tmp_path / "other"))) == plain_of(before)
    data = bytearray((moved / MAPS).read_bytes())
    data[-1] ^= 1
    (moved / MAPS).write_bytes(data)
    with pytest.raises(DataError, match=r"answer\.json: is damaged .*predict the case again"):
        read_answer(moved, tmp_path / "other")
    for text in ("", "{}", "[" * 100_000, (moved / ANSWER).read_text()[:-40]):
        (moved / ANSWER).write_text(text)
        with pytest.raises(DataError, match=r"answer\.json: is damaged"):
            read_answer(moved, tmp_path / "other")
        assert read_provenance(moved) is None


def plain_of(value: object) -> object:
    """To be compared; arrays but the probability as float16 keeps them."""
    if isinstance(value, dict):
        return {k: plain_of(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain_of(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.shape, np.asarray(value, np.float16).tobytes()
    return value


@pytest.mark.process
def test_all_cases_are_one_table_that_is_scored_once_the_truth_is_there(
    model, healthy, tmp_path
) -> None:
    answered(model, healthy, tmp_path)
    text = (tmp_path / TABLE).read_text()
    blank = parse_predictions(text, "predictions.csv", "own")
    assert all(v is UNKNOWN for row in blank for v in row.labels.values.values())
    plain = json.loads((tmp_path / "sub-01" / ANSWER).read_text())
    lines = text.splitlines()
    column = lines[0].split(",").index("idh_true")
    filled = [line.split(",") for line in lines[1:]]
    for cells, truth in zip(filled, ("mutant", "wildtype"), strict=True):
        cells[column] = truth
    told = "\n".join([lines[0], *(",".join(c) for c in filled)])
    one, other = parse_predictions(told, "predictions.csv", "own")
    assert (one.case, other.case) == ("sub-01", "sub-02")
    assert one.probabilities["idh"] == tuple(plain["markers"]["idh"]["probabilities"])


@pytest.mark.slow
def test_occlusion_maps_are_computed_when_wanted_and_then_kept(model, healthy, tmp_path) -> None:
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    shutil.rmtree(root / "north/sub-02")
    (first,) = answered(model, root, tmp_path)
    assert not read_answer(first.folder).occlusions
    (asked,) = answered(model, root, tmp_path, explain=True, overwrite=True)
    assert asked.status == "predicted"
    assert len(read_answer(asked.folder).occlusions) == len(MARKERS)
    for explain in (True, False):
        assert [f.status for f in answered(model, root, tmp_path, explain=explain)] == ["skipped"]


def test_what_cannot_be_used_at_all_is_one_error(model, tmp_path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        answered(model, tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no scan"):
        answered(model, tmp_path / "empty", tmp_path / "out")
    other = make_model(tmp_path / "m", steps="linear-0")
    with pytest.raises(ModelError, match=r"prepared by the steps 'linear-0'.*install gliofed"):
        answered(other, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.process
def test_dicom_is_taken_in_and_the_outline_goes_back_to_each_series(model, tmp_path) -> None:
    for number, style in enumerate(SIEMENS.values(), start=1):
        write_series(tmp_path / "in", style, number=number)
    out = tmp_path / "out"
    (case,) = gliofed.predict(str(tmp_path / "in"), out, gliofed.PredictOptions(model))
    assert case.status == "predicted"
    for sequence in SEQUENCES:
        (path,) = case.folder.glob(f"*_desc-{sequence.value}_mask.dcm")
        drawn = nib.load(path.with_suffix(".nii.gz"))
        again = read_segmentation(path, drawn.shape, drawn.affine)
        assert np.array_equal(again, drawn.get_fdata() > 0)
        assert again.any()
    report = pydicom.dcmread(case.folder / f"{case.folder.name}_report.dcm")
    assert report.Modality == "SR"
    text = str(report)
    assert "Research use only" in text
    assert gliofed.read_model(model).id[:12] in text
    (flair,) = case.folder.glob("*_desc-FLAIR_mask.dcm")
    assert str(pydicom.dcmread(flair).SOPInstanceUID) in text
    assert (out / "hospital-private").stat().st_mode & 0o077 == 0
    (kept,) = gliofed.predict(str(tmp_path / "in"), out, gliofed.PredictOptions(model))
    assert kept.status == "skipped"


@pytest.mark.process
def test_the_verb_ends_with_a_status(model, healthy, tmp_path) -> None:
    runner = CliRunner()
    root = tmp_path / "data"
    shutil.copytree(healthy, root)
    done = runner.invoke(
        app, ["predict", str(root), "--model", str(model), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "2 of 2 cases predicted" in done.output
    assert "Research use only" in done.output
    (flair,) = root.glob("north/sub-01/anat/*FLAIR.nii.gz")
    flair.write_bytes(flair.read_bytes()[:300])
    some = runner.invoke(
        app, ["predict", str(root), "--model", str(model), "--out", str(tmp_path / "new")]
    )
    assert some.exit_code == 1
    assert "1 of 2 cases predicted" in some.output
    none = runner.invoke(
        app,
        [
            "predict",
            str(root / "north/sub-01"),
            "--model",
            str(model),
            "--out",
            str(tmp_path / "none"),
        ],
    )
    assert none.exit_code == 2, none.output
