"""The short form of the faults: a server and a site killed under real processes.

`python tests/campaign.py` is the long one, with every phase.
"""

import signal

import pytest
import torch
from campaign import in_training
from drill import drill, same_weights, undisturbed

from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.markers import BY_ID

pytestmark = pytest.mark.slow
TRAIN = ("north", "west")


@pytest.mark.process
def test_a_killed_server_costs_no_committed_round_and_no_bit(tmp_path) -> None:
    assert torch.get_num_threads() == 1
    with drill(tmp_path / "far", rounds=3, deadline=60.0, train=TRAIN) as d:
        d.start(SERVER, *d.sites, LEAD)
        d.wait(lambda: d.rounds >= 2, "two rounds")
        d.wait(lambda: in_training(d), "sites train", poll=0.001)
        d.kill_all(SERVER)
        kept = d.committed
        assert kept is not None
        d.start(SERVER)
        end = d.over()
        state, wrong = d.committed, d.is_sound()
    assert not wrong
    assert end.state == "completed"
    assert state.rounds == 3
    assert {f.marker for f in end.fits} == set(BY_ID), "the model was not calibrated"
    assert not end.uncalibrated
    assert state.history[: kept.rounds] == kept.history, "a committed round was made anew"
    assert all(set(p.answered) == set(TRAIN) for p in state.history)
    assert any(e.event == "round-committed" for e in d.log(SERVER))
    assert not d.processes(), "a process outlived its verb"
    assert same_weights(state, undisturbed(d, tmp_path / "near"))


@pytest.mark.process
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
