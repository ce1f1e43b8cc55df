"""A segment on real NVIDIA FLARE processes over mutual TLS, beside the same study in one process."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from conftest import write_hospital
from federation_kits import make_kits, running, server_of, session, site_of, submit, wait_for

from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_data import (
    SiteDataPaths,
    open_client,
    read_data_paths,
    write_data_paths,
)
from gliofed.deployment.training_job import make_job, parse_job, run_id
from gliofed.errors import StudyError
from gliofed.federated.checkpoint import last_committed
from gliofed.federated.flare.job import write_job
from gliofed.federated.governance.approval import approve, parse_study_text
from gliofed.federated.governance.audit_verification import read_anchors, read_lines, verify
from gliofed.federated.governance.policy import load_policy
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.testing import last_test, run_test
from gliofed.runtime.device import this_machine
from gliofed.runtime.processes import cores

POLICY = "min_cases = 3\nsmallest_count = 1\n"
ROWS = {f"{n:02d}": (str(n % 2), "0", "unknown", "2") for n in range(6)}


@pytest.fixture
def study(tiny_study):
    return dataclasses.replace(
        tiny_study,
        data=dataclasses.replace(tiny_study.data, train=("north", "south", "west")),
        federation=dataclasses.replace(tiny_study.federation, quorum=2, deadline=120.0),
    )


def in_one_process(study, folder: Path, own, policies):
    """The same rounds and test with `LocalEngine`, on as many threads as a process of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(cores())
    everyone = [
        open_client(study, name, data, load_policy(policies[name]), folder / name, this_machine())
        for name, data in own.items()
    ]
    trains = [s for s in everyone if s.name in study.data.train]
    try:
        state = run_rounds(
            LocalEngine(trains, folder), study, study.seeds[0], "near", folder / "rounds"
        )
        return state, run_test(LocalEngine(everyone, folder), state, study, "near", folder)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.process
@pytest.mark.slow
def test_flare_and_one_process_end_with_the_same_bits_and_who_did_not_approve_is_named(
    study, tmp_path
) -> None:
    names, segment = ("c", "north", "south", "west"), make_job(study, rounds=5)
    make_kits(tmp_path / "kits", *names)
    own = {n: SiteDataPaths(tmp_path / n, tmp_path / f"store-{n}") for n in names}
    kits = {n: open_kit(tmp_path / "kits" / n, "site") for n in names}
    for name, kit in kits.items():
        kit.policy.write_text(POLICY)
        write_hospital(tmp_path / name, ROWS, seed=len(name))
        write_data_paths(kit, own[name])
        if name != "west":
            approve(segment.study, "Dr Who", kit.approvals)
    job = write_job(tmp_path / "jobs", "segment", segment.plain, names, quorum=2)
    with ExitStack() as stack:
        server = tmp_path / "kits/server"
        stack.enter_context(running(server_of(tmp_path / "kits"), tmp_path / "server.log"))
        for name, kit in kits.items():
            stack.enter_context(running(site_of(kit.root), tmp_path / f"{name}.log"))
        lead = tmp_path / "kits/lead"
        wait_for(lambda: session(lead).get("sites") == list(names), "all sites are connected")
        status = submit(lead, job)
    assert status == "FINISHED:COMPLETED"
    far = last_committed(server / "gliofed/work" / segment.run / "rounds", segment.run)
    assert far is not None
    assert far.rounds == study.train.rounds
    assert all(set(p.answered) == {"north", "south"} for p in far.history)
    assert all("ApprovalError" in p.refused["west"] for p in far.history)
    near, table = in_one_process(
        parse_study_text(segment.study), tmp_path / "local",
        {n: own[n] for n in names if n != "west"}, {n: k.policy for n, k in kits.items()},
    )  # fmt: skip
    assert all(torch.equal(v, near.weights[k]) for k, v in far.weights.items())
    tested = last_test(server / "gliofed/work" / segment.run, segment.run, far.rounds)
    assert tested is not None
    assert tested.sites == table.sites == ("c", "north", "south")
    assert [dataclasses.replace(r, note="") for r in tested.rows] == [
        dataclasses.replace(r, note="")
        for r in table.rows  # which names the site that is missing
    ]
    assert {r.role for r in tested.rows} == {"external", "holdout"}
    assert any(r.task == "idh" and r.value is not None for r in tested.rows)
    assert set(tested.failures) == {"west"}
    for kit, event in ((kits["north"], "answer-sent"), (kits["west"], "failure-reported")):
        assert verify(kit.audit).sound
        assert event in {line.event for line in read_lines(kit.audit)}
    log = server / "gliofed/audit.jsonl"
    for name in ("north", "south", "c"):
        assert verify(kits[name].audit, read_anchors(log, name)).sound
        assert verify(log, read_anchors(kits[name].audit, "server")).sound
    events = [line.event for line in read_lines(log)]
    assert events.count("round-committed") == study.train.rounds
    for log in tmp_path.glob("*.log"):
        assert "sub-0" not in log.read_text(), "a case's name stands in FLARE's log"


def test_a_segment_is_what_its_job_says(study) -> None:
    segment = make_job(study, rounds=3, withdrawn=("west",))
    assert parse_job(json.loads(json.dumps(segment.plain))) == segment
    assert segment.run == run_id(parse_study_text(segment.study))
    with pytest.raises(StudyError, match="the nearest valid key is 'rounds'"):
        parse_job({**segment.plain, "round": 1})


def test_a_study_that_hospitals_cannot_do_apart_is_refused(study) -> None:
    turns = dataclasses.replace(study.data, external=(), leave_one_out=("north",))
    with pytest.raises(StudyError, match="leave_one_out"):
        make_job(dataclasses.replace(study, data=turns), 1)
    with pytest.raises(StudyError, match="seeds"):
        make_job(dataclasses.replace(study, seeds=(1, 2)), 1)


def test_where_the_scans_are_stays_in_the_kit(tmp_path) -> None:
    make_kits(tmp_path / "kits", "north")
    kit = open_kit(tmp_path / "kits/north", "site")
    own = SiteDataPaths(tmp_path / "scans", tmp_path / "store", "brats")
    write_data_paths(kit, own)
    assert read_data_paths(kit) == own
    (path,) = kit.own.glob("member.toml")
    assert path.stat().st_mode & 0o777 == 0o600
