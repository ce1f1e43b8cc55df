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
from gliofed.federated.server.testing import FinishedTest, last_test
from gliofed.markers import BY_ID

pytestmark = [pytest.mark.slow, pytest.mark.process]
TRAIN = ("north", "west")
UNAPPROVED = "south"
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class KilledServer:
    """A study over, and the same one in this process. kept: committed when the server was killed.

    wrong: what the logs and rounds of the parties show to be unsound. processes: of the parties
    after their commands ended.
    """

    d: Drill
    kept: CommittedRound
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
    with drill(root / "far", rounds=ROUNDS, deadline=60.0, train=train) as d:
        kit = open_kit(d.place.kits / UNAPPROVED, "site")
        hospital = d.place.root / "hospitals" / UNAPPROVED
        write_data_paths(kit, gliofed.SiteDataPaths(hospital, d.place.root / "stores" / UNAPPROVED))
        d.start(SERVER)
        with running(site_of(kit.root), root / "unapproved.txt"):
            d.start(*TRAIN, "outer", LEAD)
            d.wait(lambda: d.rounds >= 2, "two rounds")
            d.wait(lambda: in_training(d), "sites train", poll=0.001)
            d.kill_all(SERVER)
            kept = d.committed
            assert kept is not None
            d.start(SERVER)
            end = d.over()
        state, wrong = d.committed, d.is_sound()
    assert state is not None
    processes = d.processes()
    near, near_test = undisturbed(d, root / "near", without=(UNAPPROVED,))
    return KilledServer(d, kept, end, state, wrong, processes, near, near_test)


def test_a_killed_server_costs_no_committed_round_and_no_bit(killed) -> None:
    assert not killed.wrong
    assert killed.end.state == "completed"
    assert killed.state.rounds == ROUNDS
    fits = {f.marker for f in killed.end.fits}
    assert fits == set(BY_ID), "the model was not calibrated"
    assert set(killed.end.uncalibrated) == {UNAPPROVED}
    before = killed.state.history[: killed.kept.rounds]
    assert before == killed.kept.history, "a committed round was made anew"
    assert all(set(p.answered) == set(TRAIN) for p in killed.state.history)
    assert any(e.event == "round-committed" for e in killed.d.log(SERVER))
    assert not killed.processes, "a process outlived its command"
    assert same_weights(killed.state, killed.near)


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


def test_audit_logs_anchor_each_other_and_no_log_names_a_case(killed) -> None:
    for name, event in (("north", "response-sent"), (UNAPPROVED, "failure-reported")):
        assert verify_lines(killed.audit(name)).sound
        assert event in {line.event for line in gliofed.read_log(killed.audit(name))}
    log = killed.audit(SERVER)
    for name in (*TRAIN, "outer"):
        assert verify_lines(killed.audit(name), read_anchors(log, name)).sound
        assert verify_lines(log, read_anchors(killed.audit(name), SERVER)).sound
    events = [line.event for line in gliofed.read_log(log)]
    assert events.count("round-committed") == ROUNDS
    logs = [*killed.d.place.kits.rglob("log.txt"), *killed.d.place.root.glob("logs/*.log")]
    assert len(logs) >= 2 * len(killed.d.sites)
    for path in logs:
        assert "sub-0" not in path.read_text(errors="replace"), f"a case's name stands in {path}"


@pytest.mark.campaign
def test_a_killed_site_is_named_and_comes_back(tmp_path) -> None:
    with drill(tmp_path, rounds=100, deadline=15.0, train=TRAIN) as d:
        d.start(SERVER, *d.sites, LEAD)
        d.wait(lambda: d.rounds >= 1, "a round")
        d.wait(lambda: in_training(d), "north trains", poll=0.001)
        d.end("north", signal.SIGKILL)
        d.wait(lambda: "north" in d.committed.history[-1].refused, "north is named")
        d.start("north")
        at = d.committed.rounds
        d.wait(
            lambda: any("north" in p.answered for p in d.committed.history[at:]), "north is back"
        )
        wrong = d.is_sound()
        for name in (LEAD, *d.sites, SERVER):
            d.end(name)
    assert not wrong
    assert not d.processes()
