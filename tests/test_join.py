"""Joining: data checked, the study read and agreed to; then a process that is watched."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_hospital
from federation_kits import make_kits
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.deployment.join import keep_study, record_approval
from gliofed.deployment.kit import open_kit
from gliofed.deployment.kit_process import run_process
from gliofed.deployment.site_data import read_data_paths
from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ApprovalError, CheckpointError, DataError, GliofedError, StudyError
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.governance.approval import approve, read_approval
from gliofed.federated.governance.audit_log import AuditLog
from gliofed.runtime.files import alone_in
from gliofed.runtime.progress import NoProgress
from gliofed.study import study_toml

ROWS = {f"{n:02d}": (str(n % 2), "0", "unknown", "2") for n in range(6)}


@pytest.fixture
def study(tiny_study):
    data = dataclasses.replace(tiny_study.data, train=("north", "south"), external=("c",))
    return dataclasses.replace(tiny_study, data=data)


@pytest.fixture
def kit(tmp_path):
    make_kits(tmp_path / "kits", "north", "south", "c", "stranger")
    kit = open_kit(tmp_path / "kits/north", "site")
    kit.policy.write_text("min_cases = 3\nmin_batch = 3\nsmallest_count = 1\n")
    return kit


@pytest.fixture
def data(tmp_path):
    return gliofed.SiteDataPaths(write_hospital(tmp_path / "north", ROWS), tmp_path / "store")


@pytest.fixture
def file(study, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(study_toml(study))
    return path


@pytest.mark.process
def test_a_hospital_reads_what_it_is_asked_and_its_yes_holds(kit, data, file, study) -> None:
    asked = gliofed.propose(kit.root, data, file, NoProgress())
    assert not asked.agreed
    assert any("A study contains no code." in line for line in asked.runs)
    assert any("number of training cases" in line for line in asked.leaves)
    assert read_data_paths(kit).folder == data.folder.resolve()
    record_approval(asked, "Dr Who", None)
    assert gliofed.propose(kit.root, data, file, NoProgress()).agreed
    (line,) = gliofed.read_log(kit.audit)
    assert line.event == "approved"
    assert line.fields["study"] == study_for_sites(study).digest


@pytest.mark.process
def test_a_changed_policy_or_study_asks_again(kit, data, file, study) -> None:
    record_approval(gliofed.propose(kit.root, data, file, NoProgress()), "Dr Who", None)
    train = dataclasses.replace(study.train, epochs=study.train.epochs + 1)
    file.write_text(study_toml(dataclasses.replace(study, train=train)))
    assert not gliofed.propose(kit.root, data, file, NoProgress()).agreed
    file.write_text(study_toml(study))
    assert gliofed.propose(kit.root, data, file, NoProgress()).agreed
    kit.policy.write_text("min_cases = 3\nmin_batch = 3\nsmallest_count = 2\n")
    assert not gliofed.propose(kit.root, data, file, NoProgress()).agreed


@pytest.mark.process
def test_a_policy_edited_while_it_is_read_is_not_approved(kit, data, file) -> None:
    asked = gliofed.propose(kit.root, data, file, NoProgress())
    shown = kit.policy.read_text()
    kit.policy.write_text(shown + "max_change = 9.0\n")
    with pytest.raises(ApprovalError, match=r"policy\.toml: was changed after it was shown"):
        record_approval(asked, "Dr Who", None)
    assert not [*kit.approvals.iterdir()]
    assert not kit.audit.exists()
    kit.policy.write_text(shown)
    record_approval(asked, "Dr Who", None)
    (approval,) = map(read_approval, kit.approvals.iterdir())
    assert approval.policy == asked.policy.digest


@pytest.mark.process
def test_an_approval_of_another_study_is_no_yes(kit, data, file, study, tmp_path) -> None:
    other = study_toml(study_for_sites(dataclasses.replace(study, name="other")))
    elsewhere = tmp_path / "elsewhere"
    approve(other, "Dr Who", elsewhere)
    (signed,) = elsewhere.iterdir()
    asked = gliofed.propose(kit.root, data, file, NoProgress())
    with pytest.raises(ApprovalError):
        record_approval(asked, "", signed)
    assert not [*kit.approvals.iterdir()], "the other study is not approved by the way"
    assert not gliofed.propose(kit.root, data, file, NoProgress()).agreed
    approve(asked.text, "Dr Who", tmp_path / "right")
    (signed,) = (tmp_path / "right").iterdir()
    record_approval(asked, "", signed)
    assert gliofed.propose(kit.root, data, file, NoProgress()).agreed


@pytest.mark.process
def test_the_kit_keeps_a_study_that_was_given_by_hand(kit, data, file, study) -> None:
    keep_study(gliofed.propose(kit.root, data, file, NoProgress()))
    text = kit.study.read_text()
    assert gliofed.propose(kit.root, data).text == text == study_toml(study_for_sites(study))
    assert kit.study.stat().st_mode & 0o777 == 0o600
    kit.study.write_text(f"# a remark\n{text}")
    keep_study(gliofed.propose(kit.root, data, file, NoProgress()))
    assert kit.study.read_text().startswith("# a remark")
    train = dataclasses.replace(study.train, epochs=study.train.epochs + 1)
    file.write_text(study_toml(dataclasses.replace(study, train=train)))
    keep_study(gliofed.propose(kit.root, data, file, NoProgress()))
    assert f"epochs = {train.epochs}" in kit.study.read_text()


@pytest.mark.process
def test_a_start_that_needs_a_person_ends_with_78(kit, data, file) -> None:
    """No study in the kit; nobody who answers; a no."""
    words = ["join", str(kit.root), "--data", str(data.folder), "--store", str(data.store)]
    given = [*words, "--study", str(file)]
    for argv, answer, text in (
        (words, "", "no study is proposed"),
        (given, "", "was not approved"),
        (given, "n\n", "was not approved"),
    ):
        done = CliRunner().invoke(app, argv, input=answer)
        assert done.exit_code == 78, done.output
        assert text in done.stderr
    assert not kit.study.exists()


@pytest.mark.process
def test_data_with_errors_joins_nothing(kit, data, file) -> None:
    table = data.folder / "participants.tsv"
    table.write_text(table.read_text().replace("sub-00\t0", "sub-00\tperhaps"))
    with pytest.raises(DataError, match="list them with gliofed check"):
        gliofed.propose(kit.root, data, file, NoProgress())
    assert not (kit.own / "member.toml").exists()


@pytest.mark.process
def test_no_study_and_a_study_for_others_are_told(kit, data, file, tmp_path) -> None:
    with pytest.raises(
        DataError,
        match="no study is proposed in the kit; give the lead's file once with --study",
    ):
        gliofed.propose(kit.root, data, None, NoProgress())
    with pytest.raises(DataError, match="the study is for north, south, c, not for stranger"):
        gliofed.propose(tmp_path / "kits/stranger", data, file, NoProgress())
    file.write_text("name = 1")
    with pytest.raises(StudyError):
        gliofed.propose(kit.root, data, file, NoProgress())


def process(folder: Path, code: str) -> ProcessCommand:
    return ProcessCommand((sys.executable, "-c", code), dict(os.environ), folder)


@pytest.mark.process
def test_a_process_that_ends_by_itself_is_told_with_its_log(tmp_path) -> None:
    log, heard = AuditLog(tmp_path / "audit.jsonl", "north"), []
    with pytest.raises(GliofedError, match="ended by itself, with status 3"):
        run_process(
            process(tmp_path, "print('because'); exit(3)"), tmp_path / "work", log,
            tmp_path / "log", heard.append,
        )  # fmt: skip
    assert "because" in heard
    assert (tmp_path / "log").read_text() == "because\n"
    assert [line.event for line in gliofed.read_log(log.path)] == ["started", "stopped"]


def test_a_kit_in_use_is_not_used_twice(tmp_path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", "north")
    with alone_in(tmp_path / "work"), pytest.raises(CheckpointError, match="another gliofed"):
        run_process(process(tmp_path, ""), tmp_path / "work", log, tmp_path / "log", print)
    assert not (tmp_path / "log").exists()


_STARTER = """
import sys
from pathlib import Path
from gliofed.deployment.kit_process import run_process
from gliofed.federated.flare.process import ProcessCommand
from gliofed.federated.governance.audit_log import AuditLog
import os
folder = Path(sys.argv[1])
code = '''
import subprocess, sys, time, os
from gliofed.runtime.processes import end_with_starter
end_with_starter()
open("pid", "w").write(str(os.getpid()))
time.sleep(60)
'''
run_process(
    ProcessCommand((sys.executable, "-c", code), dict(os.environ), folder), folder / "work",
    AuditLog(folder / "audit.jsonl", "north"), folder / "log", print,
)
"""


@pytest.mark.slow
@pytest.mark.process
def test_a_process_whose_starter_is_gone_already_ends_at_once(tmp_path) -> None:
    code = "import time; from gliofed.runtime.processes import end_with_starter\n"
    code += "end_with_starter(); end_with_starter(); print('on', flush=True); time.sleep(30)"
    for said, ends in (({"GLIOFED_STARTER": str(os.getpid())}, False), ({}, False),
                       ({"GLIOFED_STARTER": "1"}, True)):  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, **said},
            stdout=subprocess.PIPE,
        )  # fmt: skip
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(2)
                assert ends, "its starter lives, or is a person"
            except subprocess.TimeoutExpired:
                assert not ends, "its starter is gone"
            child.kill()


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_process_ends_with_the_verb_however_that_ends(tmp_path, number) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(tmp_path)], stderr=subprocess.DEVNULL
    )
    pid = tmp_path / "pid"
    until = time.monotonic() + 60
    while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    grandchild = int(pid.read_text())
    child.send_signal(number)
    child.wait(60)
    while Path(f"/proc/{grandchild}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{grandchild}").exists()
