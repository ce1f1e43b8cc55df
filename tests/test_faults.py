"""A study on real NVIDIA FLARE processes over mutual TLS, its server killed, beside one process.

One federation for all of it: two hospitals train, one is tested alone, and one never approves.
`python tests/campaign.py` is the long form of the faults, with every phase.
"""

import dataclasses
import signal
from pathlib import Path

import pytest
import torch
from campaign import in_training
from drill import Drill, drill, same_weights, undisturbed
from federation_kits import running, site_of

import gliofed
from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_data import write_data_paths
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.governance.audit_verification import read_anchors, verify_lines
from gliofed.federated.linkage.site_decisions import read_decisions
from gliofed.federated.server.testing import FinishedTest, last_test
from gliofed.markers import BY_ID

pytestmark = [pytest.mark.slow, pytest.mark.process]
TRAIN = ("north", "west")
UNAPPROVED = "south"
PASS, ROUNDS = 10, 20
"""Of two passes over the ten cases of both sites one by one; a commit is due after each pass."""


@dataclasses.dataclass(frozen=True)
class KilledServer:
    """A study over, and the same one in this process. kept: committed when the server was killed.

    lost: rounds that were made by then and not committed. wrong: what the logs and rounds of the parties show to be unsound. processes: of the parties
    after their commands ended.
    """

    d: Drill
    kept: CommittedRound
    lost: int
    end: gliofed.RunStatus
    state: CommittedRound
    wrong: str
    processes: list[int]
    near: CommittedRound
    near_test: FinishedTest

    def audit(self, party: str) -> Path:
        return self.d.place.kits / party / "gliofed/audit.jsonl"


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> KilledServer:
    torch.set_num_threads(1)  # as each of the drill's processes
    root = tmp_path_factory.mktemp("faults")
    train = ("north", UNAPPROVED, "west")
    federation = {"method": "synchronous", "commit": ROUNDS}
    with drill(
        root / "far",
        ROUNDS // PASS,
        deadline=60.0,
        train=train,
        batch=1,
        federation=federation,
        shared={"west": "TCGA01A001", "outer": "tcga01a00101A"},
    ) as d:
        kit = open_kit(d.place.kits / UNAPPROVED, "site")
        hospital = d.place.root / "hospitals" / UNAPPROVED
        write_data_paths(kit, gliofed.SiteDataPaths(hospital, d.place.root / "stores" / UNAPPROVED))
        d.start(SERVER)
        with running(site_of(kit.root), root / "unapproved.txt"):
            d.start(*TRAIN, "outer", LEAD)
            d.wait(lambda: last_round(d) >= PASS + 3, "rounds after the first pass", poll=0.001)
            d.kill_all(SERVER)
            kept = d.committed
            assert kept is not None
            lost = last_round(d) - kept.rounds
            d.start(SERVER)
            end = d.over()
        state, wrong = d.committed, d.is_sound()
    assert state is not None
    processes = d.processes()
    near, near_test = undisturbed(d, root / "near", without=(UNAPPROVED,))
    return KilledServer(d, kept, lost, end, state, wrong, processes, near, near_test)


def last_round(d: Drill) -> int:
    """The round that the server last asked north for."""
    return max((e.fields.get("round", 0) for e in d.log("north")), default=0)


def test_a_server_killed_between_two_commits_costs_no_committed_round_and_no_bit(killed) -> None:
    assert not killed.wrong
    assert killed.kept.rounds == PASS
    assert killed.lost >= 3
    assert killed.end.state == "completed"
    assert killed.state.rounds == ROUNDS
    fits = {f.marker for f in killed.end.fits}
    assert killed.end.untrained == ("codel_1p19q", "mgmt", "grade")
    assert fits == set(BY_ID) - set(killed.end.untrained), "the model was not calibrated"
    assert set(killed.end.uncalibrated) == {UNAPPROVED}
    assert [p.rounds for p in killed.state.history] == [PASS, PASS]
    assert killed.state.history[:1] == killed.kept.history, "a committed round was made anew"
    assert all(p.merged == dict.fromkeys(TRAIN, PASS) for p in killed.state.history)
    assert any(e.event == "round-committed" for e in killed.d.log(SERVER))
    assert not killed.processes, "a process outlived its command"
    assert same_weights(killed.state, killed.near)


def test_statistics_of_a_pass_with_repeated_rounds_count_each_round_once(killed) -> None:
    assert all(p.losses for p in killed.state.history)
    for far, near in zip(killed.state.history, killed.near.history, strict=True):
        assert (far.losses, far.dice, far.gradient_norm) == (
            near.losses, near.dice, near.gradient_norm,
        )  # fmt: skip


def test_flare_and_one_process_end_with_the_same_table(killed) -> None:
    tested = last_test(killed.d.work(SERVER), killed.d.run, ROUNDS)
    assert tested is not None
    assert tested.sites == killed.near_test.sites == ("north", "outer", "west")
    assert [dataclasses.replace(r, note="") for r in tested.rows] == [
        dataclasses.replace(r, note="")
        for r in killed.near_test.rows  # which names the site that is missing
    ]
    assert {r.role for r in tested.rows} == {"external", "holdout"}
    assert any(r.task == "idh" and r.value is not None for r in tested.rows)


def test_who_did_not_approve_is_named(killed) -> None:
    assert all("ApprovalError" in p.refused[UNAPPROVED] for p in killed.state.history)
    tested = last_test(killed.d.work(SERVER), killed.d.run, ROUNDS)
    assert set(tested.failures) == {UNAPPROVED}


def test_a_patient_at_two_sites_stays_at_the_external_one(killed) -> None:
    west, outer = (
        read_decisions(killed.d.place.kits / name / "gliofed/work" / killed.d.run)
        for name in ("west", "outer")
    )
    assert (west.left_out, dict(west.shared)) == (("TCGA01A001",), {"TCGA01A001": 1})
    assert (outer.left_out, dict(outer.shared)) == ((), {"tcga01a00101A": 1})
    assert killed.state.counts["west"].cases == killed.state.counts["north"].cases
    assert killed.end.shared == {"outer and west": "1 to 10"}
    assert set(killed.end.compared) == {*TRAIN, "outer"}
    assert "ApprovalError" in killed.end.uncompared[UNAPPROVED]
    compared = {
        name: {e.fields.get("reason") for e in gliofed.read_log(killed.audit(name))
               if e.event == "patients-compared"}
        for name in (SERVER, "north", "outer")
    }  # fmt: skip
    assert compared == {SERVER: {"small-count"}, "north": {None}, "outer": {None}}
    assert not list(killed.d.place.kits.glob("server/gliofed/work/*/linkage/*"))
    for path in (killed.d.place.kits / SERVER).rglob("*"):
        if path.is_file():
            assert b"01A001" not in path.read_bytes().upper(), path


def test_audit_logs_anchor_each_other_and_no_log_names_a_case(killed) -> None:
    for name, event in (("north", "response-sent"), (UNAPPROVED, "failure-reported")):
        assert verify_lines(killed.audit(name)).sound
        assert event in {line.event for line in gliofed.read_log(killed.audit(name))}
    log = killed.audit(SERVER)
    for name in (*TRAIN, "outer"):
        assert verify_lines(killed.audit(name), read_anchors(log, name)).sound
        assert verify_lines(log, read_anchors(killed.audit(name), SERVER)).sound
    events = [line.event for line in gliofed.read_log(log)]
    assert events.count("round-committed") == 2
    times = [(e.fields["site"], e.fields["times"]) for e in gliofed.read_log(log)
             if e.event == "update-accepted"]  # fmt: skip
    assert sorted(times) == [(name, PASS) for name in TRAIN for _ in range(2)]
    logs = [*killed.d.place.kits.rglob("log.txt"), *killed.d.place.root.glob("logs/*.log")]
    assert len(logs) >= 2 * len(killed.d.sites)
    for path in logs:
        assert "sub-0" not in path.read_text(errors="replace"), f"a case's name stands in {path}"


@pytest.mark.campaign
@pytest.mark.parametrize("method", ["synchronous", "label_aware"])
def test_a_killed_site_is_named_and_comes_back(method, tmp_path) -> None:
    federation = {"method": method, "commit": 2}
    with drill(tmp_path, 100, deadline=15.0, train=TRAIN, federation=federation) as d:
        d.start(SERVER, *d.sites, LEAD)
        d.wait(lambda: d.commits >= 1, "a round")
        d.wait(lambda: in_training(d), "north trains", poll=0.001)
        d.end("north", signal.SIGKILL)
        d.wait(lambda: "north" in d.committed.history[-1].refused, "north is named")
        d.start("north")
        at = len(d.committed.history)
        d.wait(
            lambda: any("north" in p.answered for p in d.committed.history[at:]), "north is back"
        )
        wrong = d.is_sound()
        for name in (LEAD, *d.sites, SERVER):
            d.end(name)
    assert not wrong
    assert not d.processes()
