"""What comes out of a run: the weights, the card that goes with them, and who is not named."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from federation_kits import make_kits
from made_up_federation import LATE, make_rows, make_status, make_study
from test_fed_testing import told

import gliofed
from gliofed.calibration.evaluation import scaling_rows
from gliofed.deployment import server_controller as conductor_module
from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.model_card import MODEL, model_card
from gliofed.deployment.run_page import PAGE
from gliofed.deployment.run_status import read_status
from gliofed.deployment.server_controller import ServerController
from gliofed.deployment.training_job import make_job
from gliofed.errors import CheckpointError, QuorumError
from gliofed.federated.checkpoint import last_committed
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.flare.controller import EngineConfig
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.audit_verification import verify_lines
from gliofed.federated.governance.withdrawals import record_change
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.calibration import last_calibration
from gliofed.federated.server.testing import TABLE
from gliofed.models.folder import CALIBRATIONS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.runtime.device import Device
from gliofed.runtime.templates import plain
from gliofed.study import Study
from gliofed.version import __version__

CPU = Device(torch.device("cpu"), bf16=False)
SHA = "0123456789abcdef" * 4
STUDY = make_study()


# ---- the card


def done(**more: object):
    rows, failures = make_rows(60, 11, ("leiden",)), {"leiden": LATE}
    return make_status(STUDY, 30, "completed", **{"rows": rows, "failures": failures, **more})


def table(text: str, heading: str) -> list[list[str]]:
    """The lines of the first table below a heading, without its head."""
    below = text.split(f"## {heading}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [x for x in below.splitlines() if x.startswith("|")]
    return [[cell.strip() for cell in x.strip("|").split(" |")] for x in lines[2:]]


def test_the_card_says_what_the_model_is_and_what_it_rests_on() -> None:
    status = done()
    text = model_card(STUDY, status, (), SHA)
    for said in (RESEARCH_USE_ONLY, SHA, STUDY.digest, status.run, __version__, "30 of 30",
                 "10.3389/fradi.2025.1648145", "10.1093/neuonc/noac166", "Not for diagnosis",
                 "IDH mutation", "1p/19q co-deletion", "MGMT promoter methylation", "WHO grade",
                 "**Segmentation**", "## Limits", "## Test"):  # fmt: skip
        assert said in text
    assert "synthetic" not in text
    assert "withdrawn" not in text
    assert table(text, "Sites") == [
        ["gent", "trains", "30", "1 to 30"],
        ["leiden", "trains", "26", "1 to 4, 8 to 11, 13 to 30"],
        ["utrecht", "trains", "30", "1 to 30"],
        ["amsterdam", "only tests", "", ""],
    ]
    rows = table(text, "Test")
    assert len(rows) == len(status.rows)
    for line, row in zip(rows, status.rows, strict=True):
        assert line[0] == row.role
        assert line[4] == str(row.n)
        assert line[5] == ("hidden" if row.value is None else f"{row.value:.3f}")
        assert line[6] == ("" if row.low is None else f"{row.low:.3f} to {row.high:.3f}")
    assert "- leiden: no answer: no answer within 3600 s" in text
    assert "synthetic phantoms" in model_card(make_study(synthetic=True), status, (), SHA)


def test_a_task_without_a_loss_is_not_promised() -> None:
    loss = dataclasses.replace(STUDY.loss, mask=0.0, markers={**STUDY.loss.markers, "mgmt": 0.0})
    text = model_card(dataclasses.replace(STUDY, loss=loss), make_status(STUDY, 30), (), SHA)
    assert "**Segmentation**" not in text
    assert "**MGMT" not in text
    assert "**IDH" in text


def test_a_site_that_never_answered_is_said_to_have_taught_nothing() -> None:
    points = [
        dataclasses.replace(
            p,
            answered={s: t for s, t in p.answered.items() if s != "gent"},
            merged={s: n for s, n in p.merged.items() if s != "gent"},
        )
        for p in make_status(STUDY, 30).points
    ]
    assert "No update was merged of gent:" in model_card(STUDY, done(points=tuple(points)), (), SHA)
    assert "No update was merged of" not in model_card(STUDY, done(), (), SHA)


def test_a_withdrawn_site_is_not_named_and_it_is_said_what_stays_of_it() -> None:
    text = model_card(STUDY, done(), ("utrecht",), SHA)
    assert "utrecht" not in text
    assert "without a withdrawn site (hidden" in text
    assert "1 site has withdrawn" in text
    assert "still contain what was trained there before" in text
    assert "include cases tested there before" in text
    assert len(table(text, "Test")) == sum(r.site != "utrecht" for r in done().rows)
    both = model_card(
        STUDY, done(), ("leiden", "utrecht"), SHA
    )  # the first is in no row of the test
    assert "leiden" not in both
    assert "utrecht" not in both
    assert "2 sites have withdrawn" in both


def test_a_site_that_withdrew_before_it_did_anything_leaves_nothing() -> None:
    points = [
        dataclasses.replace(
            p, answered={"gent": 1.0, "leiden": 1.0}, refused={}, merged={"gent": 1, "leiden": 1}
        )
        for p in make_status(STUDY, 30).points
    ]
    rows = make_rows(60, 1, ("utrecht",))
    status = done(points=tuple(points), rows=rows, failures={})
    text = model_card(STUDY, status, ("utrecht",), SHA)
    assert "No update from there is in the weights" in text
    assert "include cases" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b*c", r"a\_b\*c"),
        ("<img src=x>", r"\<img src=x\>"),
        ("two\nlines | cells", r"two lines \| cells"),
        ("[x](http://evil)", r"\[x\](http://evil)"),
    ],
)
def test_text_from_elsewhere_stays_text(text, shown) -> None:
    assert plain(text) == shown
    named = dataclasses.replace(STUDY, name=text)
    assert shown in model_card(named, done(), (), SHA)


# ---- the server's half of a segment, with sites in this process


class Federation:
    """Hospitals a, b (training) and c, and the server's kit that a segment is conducted with."""

    def __init__(self, folder: Path, study: Study, make_prepared) -> None:
        make_kits(folder / "kits", "a", "b", "c")
        self.kit: Kit = open_kit(folder / "kits/server", "server")
        self.study, self.silent, self._folder = study, set(), folder
        roles = {"a": "holdout", "b": "holdout", "c": "external"}
        labels = {"idh": "mutant"}, {"idh": "wildtype"}
        self._sites = {
            name: Client(
                SiteData(
                    name,
                    [make_prepared(f"{name}{n}", labels[n], name) for n in range(2)]
                    if name != "c"
                    else [],
                    lambda _, n=number, s=name, r=role: told(n, site=s, role=r),
                ),
                ClientSetup(study, 1, folder / name, CPU, rejoins=True),
            )
            for number, (name, role) in enumerate(roles.items())
        }

    def engine(self, config: EngineConfig) -> LocalEngine:
        sites = [self._sites[n] for n in config.sites if n not in self.silent]
        return LocalEngine(sites, config.spool)

    def conduct(self, rounds: int, withdrawn: tuple[str, ...] = ()) -> Path:
        job = make_job(self.study, rounds)
        for site in withdrawn:
            log = AuditLog(self.kit.audit, "server")
            record_change(self.kit.work / job.run, site, "withdraw", log)

        try:
            ServerController(**job.plain).run_job(self.engine, self.kit.root)
        finally:
            self.folder = self.kit.work / job.run
        return self.folder


@pytest.fixture
def federation(tmp_path, tiny_study, make_prepared) -> Federation:
    rules = dataclasses.replace(tiny_study.federation, method="label_aware", quorum=2)
    return Federation(tmp_path, dataclasses.replace(tiny_study, federation=rules), make_prepared)


@pytest.mark.slow
def test_a_run_leaves_model_card_and_page_once_it_is_complete(federation) -> None:
    folder = federation.conduct(rounds=1)
    assert read_status(folder).state == "waiting"
    assert "1 of 2 rounds" in (folder / PAGE).read_text()
    assert not (folder / MODEL).exists()
    federation.conduct(rounds=1)
    status = read_status(folder)
    assert (status.state, status.page, len(status.points)) == ("completed", "", 2)
    assert "2 of 2 rounds" in (folder / PAGE).read_text()
    state = last_committed(folder / "rounds", status.run)
    model = gliofed.read_model(folder / MODEL)
    own = model.recipe
    assert (own.run, own.rounds, own.study) == (status.run, 2, status.digest)
    assert all(torch.equal(v, state.weights[k]) for k, v in model.weights.items())
    assert model.id in model.card
    assert [f.n for f in status.fits if f.marker == "idh"] == [(12, 10)]  # a and b keep cases back
    rows = scaling_rows(last_calibration(folder, status.run, 2).calibration, "federated", 1, "")
    assert status.untrained == ("codel_1p19q", "mgmt", "grade")
    assert status.fits == tuple(row for row in rows if row.marker not in status.untrained)
    made = last_calibration(folder, status.run, 2).calibration
    quiet = dataclasses.replace(made, notes=dict.fromkeys(made.notes, ""))
    assert model.calibrations == {0: quiet}
    assert f"`{CALIBRATIONS}` beside them" in model.card
    assert "Calibrated on" in (folder / PAGE).read_text()
    lines = [x for x in gliofed.read_log(federation.kit.audit) if x.event == "model-written"]
    assert [x.fields for x in lines] == [{"run": status.run, "rounds": 2, "model": model.id}]
    assert verify_lines(federation.kit.audit).sound
    assert not list(folder.glob(".*.part"))


def test_a_job_that_ends_between_two_commits_commits_its_rounds(
    tmp_path, tiny_study, make_prepared
) -> None:
    """Two passes of two rounds; a commit is due after each pass only."""
    federation = Federation(tmp_path, tiny_study, make_prepared)
    for rounds, done in ((1, [1]), (1, [1, 1]), (1, [1, 1, 1])):
        folder = federation.conduct(rounds)
        status = read_status(folder)
        assert (status.state, status.rounds, status.done) == ("waiting", 4, len(done))
        assert [p.rounds for p in status.points] == done
    federation.conduct(5)
    status = read_status(folder)
    assert (status.state, status.done) == ("completed", 4)
    lines = [x.fields for x in gliofed.read_log(federation.kit.audit) if x.event == "job-ended"]
    assert [x["rounds"] for x in lines] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_site_that_withdraws_after_the_end_goes_from_the_card_with_the_next_segment(
    federation,
) -> None:
    folder = federation.conduct(rounds=2)
    before = gliofed.read_model(folder / MODEL)
    assert table(before.card, "Sites")[1] == ["b", "trains", "2", "1 to 2"]
    federation.silent = {"a", "b", "c"}  # nobody is asked again
    federation.conduct(rounds=2, withdrawn=("b",))
    model = gliofed.read_model(folder / MODEL)
    after = model.card
    assert [x[0] for x in table(after, "Sites")] == ["a", "c"]
    assert {x[1] for x in table(after, "Test")} == {"all hospitals", "a", "c"}
    assert "1 site has withdrawn" in after
    assert "include cases tested there before" in after
    assert model.id == before.id
    assert all(torch.equal(v, before.weights[k]) for k, v in model.weights.items())
    assert read_status(folder).state == "completed"


@pytest.mark.slow
def test_the_model_can_be_tested_again_without_a_site_that_withdrew(federation) -> None:
    folder = federation.conduct(rounds=2)
    (folder / TABLE).unlink()
    federation.conduct(rounds=2, withdrawn=("b",))
    after = gliofed.read_model(folder / MODEL).card
    assert {x[1] for x in table(after, "Test")} == {"all hospitals", "a", "c"}
    assert "still contain what was trained there before" in after
    assert "include cases" not in after


def test_below_quorum_there_is_a_page_and_no_model(federation) -> None:
    federation.silent = {"b"}
    with pytest.raises(QuorumError):
        federation.conduct(rounds=2)
    folder = federation.folder
    assert read_status(folder).state == "below quorum"
    assert "below quorum" in (folder / PAGE).read_text()
    assert not (folder / MODEL).exists()


@pytest.mark.slow
def test_a_run_whose_model_cannot_be_written_is_not_complete(federation, monkeypatch) -> None:
    def fail(*_: object) -> str:
        raise OSError(28, "No space left on device", "weights.safetensors")

    monkeypatch.setattr(conductor_module, "write_model", fail)
    with pytest.raises(OSError, match="No space"):
        federation.conduct(rounds=2)
    told = read_status(federation.folder)
    assert (told.state, told.why) == ("failed", "on the server: No space left on device")
    events = [x.event for x in gliofed.read_log(federation.kit.audit)]
    assert events.count("job-failed") == 1
    assert "model-written" not in events
    monkeypatch.undo()
    federation.conduct(rounds=2)
    assert read_status(federation.folder).state == "completed"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            OSError(28, "No space left on device", "a path"),
            "on the server: No space left on device",
        ),
        (CheckpointError("round-00001: damaged"), "round-00001: damaged"),
    ],
)
def test_a_segment_that_fails_before_its_first_round_tells_the_lead_why(
    federation, monkeypatch, error, why
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(conductor_module, "last_committed", fail)
    monkeypatch.setattr(conductor_module, "write_status", fail)
    job = make_job(federation.study, 2)
    conductor = ServerController(**job.plain)
    assert conductor.status() == {}
    with pytest.raises(type(error)):
        conductor.run_job(lambda *_: None, federation.kit.root)
    told = conductor.status()
    assert (told["state"], told["why"]) == ("failed", why)
    assert [x.event for x in gliofed.read_log(federation.kit.audit)] == [
        "job-started", "job-failed",
    ]  # fmt: skip
