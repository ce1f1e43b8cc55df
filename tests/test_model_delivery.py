"""The finished model on its way to the hospitals: whole, checked, theirs to keep, and no other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from federation_kits import make_kits
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.client_executor import ClientExecutor
from gliofed.deployment.kit import open_kit
from gliofed.deployment.model_delivery import DELIVERED, deliver_model
from gliofed.deployment.site_model import MODEL, read_scores
from gliofed.deployment.training_job import make_job, study_for_sites
from gliofed.errors import ApprovalError, CheckpointError, ModelError, UpdateError
from gliofed.evaluation.results import CaseResult
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.model_delivery import (
    ModelReceipt,
    ModelRequest,
    check_receipt,
    load_model_request,
    save_model_request,
    save_receipt,
)
from gliofed.federated.server.exchange import SiteReply
from gliofed.models.folder import CARD, RECORD, WEIGHTS, model_files, recipe_of, write_model
from gliofed.models.network import build_net
from gliofed.runtime.device import Device
from gliofed.types import Labels

NONCE = "0" * 32
CPU = Device(torch.device("cpu"), bf16=False)
SITES = ("north", "south", "c")


@pytest.fixture
def study(tiny_study):
    return study_for_sites(
        dataclasses.replace(
            tiny_study,
            data=dataclasses.replace(tiny_study.data, train=SITES[:2], external=SITES[2:]),
            federation=dataclasses.replace(tiny_study.federation, share_model=True),
        )
    )


@pytest.fixture
def model(study, tmp_path) -> Path:
    """The finished model in the server's folder of the run."""
    job = make_job(study, 1)
    weights = build_net(study.net, 1).state_dict()
    folder = tmp_path / "server" / job.run / MODEL
    write_model(folder, recipe_of(study, job.run, 4), weights, {}, lambda id_: f"card of {id_}")
    return folder


@pytest.fixture
def kit(tmp_path):
    make_kits(tmp_path / "kits", *SITES)
    return open_kit(tmp_path / "kits/north", "site")


def result(case: int) -> CaseResult:
    """IDH is predicted as mutant with 0.9 where it is, and with 0.2 where it is not; Dice 0.5."""
    mutant = 0.9 if case % 2 else 0.2
    return CaseResult(
        model="federated", seed=1, fold="", role="holdout", case=f"{case}", site="north",
        patient=f"{case}", labels=Labels({"idh": "mutant" if case % 2 else "wildtype"}),
        probabilities={"idh": (1 - mutant, mutant)}, dice=0.5, hd95_mm=None, volume_ml=1.0,
        volume_true_ml=1.0,
    )  # fmt: skip


def executor(study, kit, results=6) -> ClientExecutor:
    """The site's half of a job, with the policy that permits no score to leave."""
    made = ClientExecutor(**make_job(study, 1).plain)
    made._root = kit.root
    policy = SitePolicy(metrics=())
    site = SiteData("north", test=lambda _: [result(n) for n in range(results)])
    made._opened = Client(site, ClientSetup(study, 1, kit.work, CPU), policy)
    return made


def request_of(model: Path, **changes: object) -> ModelRequest:
    id_, files = model_files(model)
    request = ModelRequest(model.parent.name, NONCE, id_, files)
    return dataclasses.replace(request, **changes)


def test_a_model_and_its_receipt_come_back_from_their_files(model, tmp_path) -> None:
    request = request_of(model)
    save_model_request(tmp_path / "m", request)
    assert load_model_request(tmp_path / "m") == request
    receipt = ModelReceipt(request.run, NONCE, "north", request.model)
    save_receipt(tmp_path / "r", receipt)
    check_receipt("north", request, tmp_path / "r")
    for field in ("run", "nonce", "site", "model"):
        save_receipt(tmp_path / "r", dataclasses.replace(receipt, **{field: "another"}))
        with pytest.raises(UpdateError, match="site north: receipt refused"):
            check_receipt("north", request, tmp_path / "r")
    with pytest.raises(UpdateError, match="its note has 'site', expected only"):
        load_model_request(tmp_path / "r")


def test_a_hospital_keeps_the_model_tests_it_for_itself_and_takes_it_out(
    study, model, kit, tmp_path
) -> None:
    save_model_request(tmp_path / "request", request_of(model))
    site = executor(study, kit)
    note = json.dumps({"kind": "model", "run": "r", "nonce": NONCE, "model": "m"})
    assert not site.respond_to_note(note, tmp_path / "response")
    site.respond(tmp_path / "request", tmp_path / "response")
    check_receipt("north", request_of(model), tmp_path / "response")
    own = kit.work / model.parent.name
    assert {p.name: p.read_bytes() for p in (own / MODEL).iterdir()} == request_of(model).files
    scores = {(r.task, r.metric): (r.n, r.value) for r in read_scores(own)}
    assert scores["mask", "dice"] == (6, 0.5)
    assert scores["idh", "auc_within_site"] == (6, 1.0)
    assert {r.site for r in read_scores(own)} == {"north"}
    events = [x.event for x in gliofed.read_log(kit.audit)]
    assert events == ["request-received", "model-received", "response-sent"]

    done = CliRunner().invoke(app, ["model", "fetch", str(kit.root), "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    id_ = gliofed.read_model(model).id
    assert id_ in done.output
    assert "0.500" in done.output
    assert gliofed.read_model(tmp_path / "m").id == id_
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match="exists and is not a model"):
        gliofed.fetch_model(kit.root, tmp_path / "other")


def test_without_test_cases_the_model_is_kept_all_the_same(study, model, kit, tmp_path) -> None:
    save_model_request(tmp_path / "request", request_of(model))
    executor(study, kit, results=0).respond(tmp_path / "request", tmp_path / "response")
    assert gliofed.fetch_model(kit.root, tmp_path / "m").scores == ()


def test_a_kit_without_a_model_says_how_to_get_one(kit, tmp_path) -> None:
    with pytest.raises(ModelError, match="ask the lead to run gliofed start once more"):
        gliofed.fetch_model(kit.root, tmp_path / "m")


def test_a_model_that_the_approved_study_does_not_share_is_refused(
    study, model, kit, tmp_path
) -> None:
    federation = dataclasses.replace(study.federation, share_model=False)
    site = executor(dataclasses.replace(study, federation=federation), kit)
    save_model_request(tmp_path / "request", request_of(model))
    with pytest.raises(ApprovalError, match="does not provide for"):
        site.respond(tmp_path / "request", tmp_path / "response")
    assert not [*kit.work.glob(f"*/{MODEL}")]


def changed(files, name, data):
    return {**files, name: data}


@pytest.mark.parametrize(
    "change",
    [
        lambda f: changed(f, WEIGHTS, f[WEIGHTS][:-4] + b"\0\0\0\1"),
        lambda f: changed(f, CARD, b"another card"),
        lambda f: changed(f, RECORD, f[RECORD].replace(b'"rounds": 4', b'"rounds": 5')),
        lambda f: changed(f, "more.txt", b"x"),
        lambda f: changed(f, "../../policy.toml", b"min_cases = 1"),
        lambda f: {k: v for k, v in f.items() if k != WEIGHTS},
    ],
)
def test_a_changed_model_is_refused_and_the_one_before_stays(
    study, model, kit, tmp_path, change
) -> None:
    site, right = executor(study, kit), request_of(model)
    save_model_request(tmp_path / "request", right)
    site.respond(tmp_path / "request", tmp_path / "response")
    policy = kit.policy.read_text()
    wrong = dataclasses.replace(right, files=change(right.files))
    save_model_request(tmp_path / "request", wrong)
    with pytest.raises(ModelError):
        site.respond(tmp_path / "request", tmp_path / "response")
    own = kit.work / model.parent.name
    assert {p.name: p.read_bytes() for p in (own / MODEL).iterdir()} == right.files
    assert kit.policy.read_text() == policy
    assert not [*own.glob(".*")]


def test_a_model_of_another_run_is_refused(study, kit, tmp_path) -> None:
    folder = tmp_path / "elsewhere" / MODEL
    weights = build_net(study.net, 1).state_dict()
    write_model(folder, recipe_of(study, "ab" * 12, 4), weights, {}, lambda _: "card")
    save_model_request(tmp_path / "request", request_of(folder))
    with pytest.raises(ModelError, match="and it was not kept"):
        executor(study, kit).respond(tmp_path / "request", tmp_path / "response")


class Engine:
    """Sites that give a receipt, but those of `failing`. asked: the sites of each request."""

    def __init__(self, failing: dict[str, str]) -> None:
        self.failing, self.asked = failing, []

    def __call__(self, names):
        self.names = names
        self.asked.append(list(names))
        return self

    def send(self, request: Path):
        sent = load_model_request(request)
        for site in self.names:
            if site in self.failing:
                yield SiteReply(site, None, self.failing[site])
                continue
            file = request.with_name(f"receipt-{site}")
            save_receipt(file, ModelReceipt(sent.run, sent.nonce, site, sent.model))
            yield SiteReply(site, file)


def test_who_has_the_model_is_not_sent_it_again_and_who_has_not_is(model, tmp_path) -> None:
    log, engine = AuditLog(tmp_path / "audit.jsonl", "server"), Engine({"south": "away"})
    failures = deliver_model(engine, model, SITES, log)
    assert failures == {"south": "site south: no response: away"}
    engine.failing = {}
    assert deliver_model(engine, model, SITES, log) == {}
    assert deliver_model(engine, model, SITES, log) == {}
    assert engine.asked == [["north", "south", "c"], ["south"]]
    run, id_ = model.parent.name, gliofed.read_model(model).id
    lines = [(x.event, x.fields) for x in gliofed.read_log(log.path)]
    assert lines == [
        ("model-sent", {"run": run, "site": site, "model": id_}) for site in ("north", "c", "south")
    ]
    assert sorted(p.name for p in model.parent.iterdir()) == [DELIVERED, MODEL]
    (model.parent / DELIVERED).write_text("[")
    with pytest.raises(CheckpointError, match="delete this file"):
        deliver_model(engine, model, SITES, log)
