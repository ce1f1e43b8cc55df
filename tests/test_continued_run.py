"""More rounds for a finished run, and its test made once more: each by a command, none by the way."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from federation_kits import make_kits
from test_model_card import Federation
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.continued_run import begin_run
from gliofed.deployment.kit import open_kit
from gliofed.deployment.run_status import RunStatus, read_status, write_status
from gliofed.deployment.server_controller import ServerController
from gliofed.deployment.training_job import make_job, run_id, study_for_sites
from gliofed.errors import CheckpointError, StudyError
from gliofed.experiments.run import run_study
from gliofed.federated.checkpoint import last_committed
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.federated.governance.consent import what_runs
from gliofed.federated.governance.withdrawals import read_withdrawn
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import load_study, parse_study, study_toml


@pytest.fixture
def federation(tmp_path, tiny_study, make_prepared) -> Federation:
    rules = dataclasses.replace(tiny_study.federation, method="fedadam", quorum=1, server_lr=0.01)
    study = study_for_sites(dataclasses.replace(tiny_study, federation=rules))
    return Federation(tmp_path, study, make_prepared)


def longer(study, epochs=3, **changes):
    """The study that continues the run of `study`. changes: of its settings."""
    train = dataclasses.replace(study.train, epochs=epochs)
    federation = dataclasses.replace(study.federation, continues=run_id(study), deadline=9.0)
    return dataclasses.replace(study, train=train, federation=federation, **changes)


def test_a_finished_run_gets_more_rounds_from_its_last_one_on(federation, tmp_path) -> None:
    first = federation.conduct(rounds=2, withdrawn=("b",))
    before = last_committed(first / "rounds", first.name)
    federation.study = longer(federation.study)
    run = federation.kit.work / run_id(federation.study)
    begin_run(federation.study, run, AuditLog(federation.kit.audit, "server"))
    begun = last_committed(run / "rounds", run.name)
    assert run != first
    assert (begun.rounds, begun.schedule.rounds, begun.history) == (2, 3, before.history)
    assert all(torch.equal(v, before.weights[k]) for k, v in begun.weights.items())
    assert begun.state.keys() == before.state.keys() != set()
    assert read_withdrawn(run) == ("b",), "who has withdrawn is not asked by the way"

    for path in tmp_path.glob("*/after-*.safetensors"):
        path.unlink()  # a site has a folder of its own for each run
    assert federation.conduct(rounds=9) == run
    after = last_committed(run / "rounds", run.name)
    assert read_status(run).state == "completed"
    assert (after.rounds, after.history[:2]) == (3, before.history)
    assert set(after.history[2].answered) == {"a"}
    lines = [x.fields for x in gliofed.read_log(federation.kit.audit) if x.event == "run-continued"]
    assert lines == [{"run": run.name, "continues": first.name, "rounds": 2}]


def test_what_is_not_complete_or_differs_in_more_than_epochs_is_not_continued(
    federation, tmp_path
) -> None:
    study, log = federation.study, AuditLog(tmp_path / "audit.jsonl", "server")

    def begin(proposed) -> None:
        begin_run(proposed, federation.kit.work / run_id(proposed), log)

    federation.conduct(rounds=1)
    with pytest.raises(CheckpointError, match="is not complete on this server"):
        begin(longer(study))
    federation.conduct(rounds=1)
    with pytest.raises(StudyError, match=r"gives 2 rounds, and run .* has 2 already"):
        begin(longer(study, epochs=2))
    for changes in (
        {"data": dataclasses.replace(study.data, holdout=0.5)},
        {"data": dataclasses.replace(study.data, train=("a",), external=("b", "c"))},
        {"seeds": (2,)},
        {"loss": dataclasses.replace(study.loss, mask=2.0)},
    ):
        with pytest.raises(StudyError, match=r"in more than train\.epochs"):
            begin(longer(study, **changes))
    begin(longer(study, name="another title"))


def test_a_test_is_made_once_more_by_order_alone_and_the_one_before_stays(federation) -> None:
    folder = federation.conduct(rounds=2)
    before = {p.name: p.read_text() for p in folder.glob("*.json")}
    federation.silent = {"b"}
    federation.conduct(rounds=2)
    assert (folder / "test.json").read_text() == before["test.json"]
    job = dataclasses.replace(make_job(federation.study, 2), test_again=True)
    ServerController(**job.plain).run_job(federation.engine, federation.kit.root)
    for name in ("test", "calibration"):
        assert (folder / f"{name}-1.json").read_text() == before[f"{name}.json"]
    assert {r.site for r in read_status(folder).rows} == {"all", "a", "c"}
    events = [x.event for x in gliofed.read_log(federation.kit.audit)]
    assert events.count("test-repeated") == 1


class TestExtend:
    @pytest.fixture
    def study(self, tmp_path, tiny_study):
        (tmp_path / "study.toml").write_text(study_toml(tiny_study))
        return tmp_path / "study.toml"

    @pytest.fixture
    def kit(self, tmp_path, study):
        """The lead's, with a finished run of the study."""
        make_kits(tmp_path / "kits", "a", "b", "c")
        kit = open_kit(tmp_path / "kits/lead", "lead")
        run = run_id(study_for_sites(load_study(study)))
        (kit.work / run).mkdir(parents=True)
        write_status(kit.work / run, RunStatus(run, "tiny", "d", "completed", "", 2, ()))
        return kit

    def test_it_writes_a_study_that_needs_a_new_approval(self, study, kit, tmp_path) -> None:
        out = tmp_path / "longer.toml"
        words = ["extend", str(study), "--kit", str(kit.root), "--epochs", "9", "--out", str(out)]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        before, after = load_study(study), load_study(out)
        assert after.federation.continues == run_id(study_for_sites(before))
        assert after.train.epochs == 9
        assert after.data == before.data
        assert after.digest != before.digest
        assert after.federation.continues in " ".join(what_runs(after, 1))
        assert CliRunner().invoke(app, words).exit_code == 1, "it is there already"
        with pytest.raises(StudyError, match="a run between hospitals"):
            run_study(after, tmp_path / "run", NO_PROGRESS)

    def test_more_epochs_and_a_finished_run_are_needed(self, study, kit, tmp_path) -> None:
        epochs = load_study(study).train.epochs
        with pytest.raises(StudyError, match="give a larger number"):
            gliofed.extend(study, kit.root, epochs, tmp_path / "x.toml")
        (run,) = kit.work.iterdir()
        write_status(run, dataclasses.replace(read_status(run), state="stopped"))
        with pytest.raises(CheckpointError, match="is stopped, not completed"):
            gliofed.extend(study, kit.root, epochs + 1, tmp_path / "x.toml")
        assert not (tmp_path / "x.toml").exists()


@pytest.mark.parametrize("run", ["../../etc", "AB" * 12, "ab" * 11, "ab" * 13])
def test_the_id_of_a_run_is_one(tiny_study, run) -> None:
    plain = {"name": "x", "data": {"root": ".", "train": ["a"], "external": ["b"]}}
    parse_study({**plain, "federation": {"continues": "ab" * 12}})
    with pytest.raises(StudyError, match=r"federation\.continues: the id of a run"):
        parse_study({**plain, "federation": {"continues": run}})
