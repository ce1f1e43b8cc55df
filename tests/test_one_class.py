"""A marker of which fewer than two classes have training cases: trained by no one, answered by no
one, and said so from the start to the report."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from made_up_federation import make_status, make_study
from small_model import make_model
from test_fed_testing import STATE, TOLD
from test_model_card import SHA
from test_sr import REPORT
from test_synchronous import CPU, pool

import gliofed
from gliofed.calibration.cns5 import NOT_DETERMINABLE
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.cli.screens.federation import status_table
from gliofed.data.store import PreparedCase
from gliofed.deployment.model_card import model_card
from gliofed.deployment.site_progress import ProgressRecorder, read_progress
from gliofed.dicom import report_codes, sr
from gliofed.dicom.case_report import validated_report
from gliofed.errors import ModelError
from gliofed.evaluation.prediction_table import class_columns
from gliofed.experiments.predictions import CasePredictor
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.label_counts import (
    NO_CASES,
    Pass,
    class_weights,
    not_trained_text,
    row_weights,
    untrained_markers,
)
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.federated.server.testing import run_test
from gliofed.inference.answer_files import (
    ANSWER,
    _marker,
    _marker_record,
    load_record,
    predictions_table,
)
from gliofed.inference.case import answer_case
from gliofed.inference.forward import DeviceNetwork
from gliofed.inference.worklist import _marker as worklist_marker
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.folder import RECORD, read_model
from gliofed.models.network import build_net, task_of
from gliofed.reporting.case.tables import marker_panel, uncalibrated
from gliofed.reporting.case.worklist_page import marker_chip
from gliofed.study import LossConfig, NetworkConfig
from gliofed.types import Placement, Sequence

OTHERS = ("codel_1p19q", "grade")
"""Markers of which no case of these tests has a label."""


def classes(**known):
    return {m.id: known.get(m.id, (0,) * len(m.classes)) for m in MARKERS}


# ---- one function


@pytest.mark.parametrize(
    ("idh", "untrained"), [((0, 0), True), ((9, 0), True), ((0, 9), True), ((9, 1), False)]
)
def test_two_classes_must_have_a_case(idh, untrained) -> None:
    both = {"codel_1p19q": (3, 2), "mgmt": (1, 1), "grade": (0, 4, 1)}
    counts = dataclasses.replace(NO_CASES, cases=20, classes=classes(idh=idh, **both))
    found = untrained_markers(LossConfig(), counts.classes)
    assert found == (("idh",) if untrained else ())
    # a site, which has the class weights of the request only, finds the same
    weights = class_weights(counts)
    assert untrained_markers(LossConfig(), weights) == found
    for known in (counts.classes, weights):
        rows = row_weights(LossConfig(), Pass({**counts.labelled, "idh": 10}, 2, known))
        assert (rows["idh"] == 0) == untrained
        assert rows["mgmt"] == pytest.approx(2 / 2)


def test_a_marker_that_the_loss_leaves_out_is_not_trained() -> None:
    loss = LossConfig(markers={**LossConfig().markers, "mgmt": 0.0})
    two = classes(idh=(1, 1), codel_1p19q=(1, 1), mgmt=(1, 1), grade=(1, 1, 0))
    assert untrained_markers(loss, two) == ("mgmt",)
    assert not_trained_text(("mgmt",)).startswith("not trained: MGMT promoter methylation (fewer")
    assert not not_trained_text(())


# ---- training


@pytest.fixture
def hospitals(make_prepared):
    """MGMT has two classes, but at no hospital; all patients with an IDH status are mutants."""
    return {
        site: [
            make_prepared(f"{site}{i}", {"idh": "mutant", "mgmt": value}, site) for i in range(3)
        ]
        for site, value in (("a", "methylated"), ("b", "unmethylated"))
    }


def changed_tasks(weights):
    start = build_net(NetworkConfig("small"), 1).state_dict()
    return {task_of(k) for k, v in weights.items() if not torch.equal(v, start[k])}


@pytest.mark.parametrize("method", ["synchronous", "label_aware", "scaffold"])
def test_no_federation_trains_it(method, hospitals, tiny_study, tmp_path) -> None:
    rules = dataclasses.replace(tiny_study.federation, method=method)
    train = dataclasses.replace(tiny_study.train, epochs=1, batch=6)
    study = dataclasses.replace(tiny_study, federation=rules, train=train)
    seen = []
    clients = [
        Client(SiteData(name, cases), ClientSetup(study, 1, tmp_path / name, CPU))
        for name, cases in hospitals.items()
    ]
    state = run_rounds(
        LocalEngine(clients, tmp_path),
        FederatedRun(study, "run", 1, tmp_path / "rounds"),
        on_start=lambda counted: seen.append((counted.rounds, counted.untrained(study.loss))),
    )
    assert seen == [(0, ("idh", *OTHERS))]  # known before the first round
    assert changed_tasks(state.weights) == {"trunk", "mask", "mgmt"}
    assert set(state.history[0].losses) == {"mask", "mgmt"}


def test_plain_training_does_not_either(hospitals, tiny_study, tmp_path) -> None:
    train = dataclasses.replace(tiny_study.train, epochs=1, batch=6)
    study = dataclasses.replace(tiny_study, train=train)
    state = pool(hospitals, study, tmp_path)
    assert changed_tasks(state.weights) == {"trunk", "mask", "mgmt"}
    assert state.untrained(study.loss) == ("idh", *OTHERS)


# ---- scores


def test_predictions_of_a_run_have_no_probability_for_it(make_prepared, tiny_study) -> None:
    net = build_net(NetworkConfig("small"), 1)
    case = make_prepared("case")
    found = CasePredictor(net, CPU, mirror=False, untrained=("idh",)).predict(case).markers
    plain = CasePredictor(net, CPU, mirror=False).predict(case).markers
    assert all(math.isnan(p) for p in found["idh"])
    assert {m: p for m, p in found.items() if m != "idh"} == {
        m: p for m, p in plain.items() if m != "idh"
    }


def test_the_federated_test_has_no_figure_of_it(tiny_study, tmp_path) -> None:
    def tested(folder, idh):
        folder.mkdir()
        clients = [
            Client(
                SiteData(n, test=lambda w, n=n: TOLD[n]), ClientSetup(tiny_study, 1, folder, CPU)
            )
            for n in TOLD
        ]
        counts = {"a": dataclasses.replace(NO_CASES, cases=9, classes=classes(idh=idh))}
        state = dataclasses.replace(STATE, counts=counts)
        rows = run_test(LocalEngine(clients, folder), state, tiny_study, "run", folder).rows
        return {row.task for row in rows}

    assert "idh" in tested(tmp_path / "two", (5, 4))
    assert "idh" not in tested(tmp_path / "one", (9, 0))


# ---- one patient


@pytest.fixture
def model(tmp_path):
    return read_model(make_model(tmp_path / "model", untrained=("codel_1p19q",)))


def answer(model, case: PreparedCase, explained=False):
    place = Placement((16, 16, 16), np.eye(4), np.eye(4))
    case = dataclasses.replace(case, placements={Sequence.FLAIR: place})
    return answer_case(model, DeviceNetwork(model.net(), CPU), case, explained)


def test_a_model_has_no_answer_for_it(model, make_prepared, tmp_path) -> None:
    case = make_prepared("case")
    full = read_model(make_model(tmp_path / "full"))
    found, plain = answer(model, case, explained=True), answer(full, case)
    by_id = {m.marker: m for m in found.markers}
    own = by_id.pop("codel_1p19q")
    assert not own.trained
    assert all(math.isnan(p) for p in (*own.probabilities, *own.uncalibrated))
    assert (own.low, own.high, own.prediction_set, own.confident) == (None,) * 4
    assert all(m.trained and all(map(math.isfinite, m.probabilities)) for m in by_id.values())
    idh = next(m for m in plain.markers if m.marker == "idh")
    assert by_id["idh"].uncalibrated == idh.uncalibrated
    assert found.integrated.answer == NOT_DETERMINABLE
    assert found.integrated.probabilities is None
    assert found.integrated.reason == "the model is not trained for 1p/19q co-deletion"
    assert {o.marker for o in found.occlusion.markers} == set(by_id)


def test_its_answer_is_said_on_the_page_the_list_the_table_and_in_dicom(
    model, make_prepared, tmp_path
) -> None:
    found = answer(model, make_prepared("case"))
    own = next(m for m in found.markers if not m.trained)
    panel = marker_panel(own)
    assert (panel.trained, panel.bars, panel.statement) == (False, (), "")
    assert own.marker not in {m.id for m in MARKERS if m.title in uncalibrated([own])}
    record = json.loads(json.dumps(_marker_record(own), allow_nan=False))
    assert record["probabilities"] == [None, None]
    again = _marker(own.marker, record)
    assert not again.trained
    assert all(map(math.isnan, again.probabilities))
    assert marker_chip(worklist_marker(own.marker, record)).text == "1p/19q: not trained"
    folder = tmp_path / "case"
    folder.mkdir()
    markers = {m.marker: _marker_record(m) for m in found.markers}
    plain = {"format": 1, "case": "case", "markers": markers, "missing": [], "volume_ml": 1.0, "quality": [],
             "integrated": {"answer": NOT_DETERMINABLE}, "model": {"id": "m"}}  # fmt: skip
    (folder / ANSWER).write_text(json.dumps(plain))
    assert load_record(folder)["case"] == "case"
    (row,) = csv.DictReader(io.StringIO(predictions_table([folder])))
    columns = [c for c in row if c.startswith("codel_1p19q")]
    assert len(columns) == 3
    assert {row[c] for c in columns} == {""}
    assert all(float(row[c]) > 0 for c in class_columns(BY_ID["idh"]))


def test_a_dicom_report_has_its_own_code_for_it() -> None:
    own = MarkerAnswer("mgmt", (math.nan,) * 2, None, None, None, None, trained=False)
    report = validated_report(dataclasses.replace(REPORT, markers=(own,)))
    (group,) = sr._marker(report.markers[0], sr.TrackingIdentifier("1.2.3", "x"))
    codes = {
        item.ConceptCodeSequence[0].CodeValue
        for item in group.ContentSequence
        if item.ValueType == "CODE"
    }
    assert report_codes.NOT_TRAINED.value in codes
    assert report_codes.NO_CALIBRATION.value not in codes
    assert not [i for i in group.ContentSequence if i.ValueType == "NUM"]


def test_a_record_with_an_unknown_untrained_marker_is_refused(tmp_path) -> None:
    folder = make_model(tmp_path / "model")
    record = json.loads((folder / RECORD).read_text())
    record["model"]["untrained"] = ["tert"]
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(ModelError, match="'tert' is no marker"):
        gliofed.read_model(folder)


# ---- what is said


def test_the_card_claims_nothing_of_it() -> None:
    study = make_study()
    status = make_status(study, 30)
    assert "**IDH" in model_card(study, status, (), SHA)
    text = model_card(study, dataclasses.replace(status, untrained=("idh",)), (), SHA)
    assert "**IDH" not in text
    assert "so that there is no answer: IDH mutation." in text
    assert "**MGMT" in text


def test_the_leads_and_the_sites_screens_say_it(tmp_path) -> None:
    status = dataclasses.replace(make_status(make_study(), 3), untrained=("idh",))
    assert "not trained: IDH mutation" in status_table(status).renderables[0].caption
    recorder = ProgressRecorder(tmp_path, "glioma")
    sent = {"kind": "train", "round": 0, "rounds": 9}
    recorder.responded({**sent, "untrained": ("idh",)}, {}, 1.0)
    assert "not trained: IDH mutation" in read_progress(tmp_path).line
    again = ProgressRecorder(tmp_path, "glioma")
    again.responded({**sent, "round": 1}, {}, 1.0)  # without a case in the batch
    assert list(read_progress(tmp_path).untrained) == ["idh"]
    assert BY_ID["idh"].title == "IDH mutation"
