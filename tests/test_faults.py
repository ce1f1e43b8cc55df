"""The short form of the faults: a server and a site killed under real processes.

`python tests/campaign.py` is the long one, with every phase.
"""

import signal
from pathlib import Path

import pytest
import torch
from campaign import in_training
from drill import SITES, TRAIN, Drill, drill, same_weights

from gliofed.consortium.hospital import Data, open_site
from gliofed.consortium.plan import LEAD, SERVER
from gliofed.consortium.segment import fit_for_sites
from gliofed.fed.checkpoint import Committed
from gliofed.fed.engines.local import LocalEngine
from gliofed.fed.rounds import run_rounds
from gliofed.fed.trust.policy import load_policy
from gliofed.learn.machine import this_machine
from gliofed.nets.unet import build_net

pytestmark = pytest.mark.slow


def undisturbed(d: Drill, folder: Path) -> Committed:
    """The same rounds in this process, on as many threads as each of the drill's."""
    study = fit_for_sites(d.study)
    policy = load_policy(d.place.kits / "north/gliofed/policy.toml")
    sites = [
        open_site(study, name, Data(d.place.root / "hospitals" / name, folder / f"store-{name}"),
                  policy, folder / name, this_machine())
        for name in TRAIN
    ]  # fmt: skip
    net = build_net(study.net.preset, study.net.stem, seed=study.seeds[0]).state_dict()
    initial = {k: v.clone() for k, v in net.items()}
    return run_rounds(LocalEngine(sites, folder), initial, study, "near", folder / "rounds")


def test_a_killed_server_costs_no_committed_round_and_no_bit(tmp_path) -> None:
    assert torch.get_num_threads() == 1
    with drill(tmp_path / "far", rounds=4, deadline=60.0) as d:
        d.start(SERVER, *SITES, LEAD)
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
    assert state.rounds == 4
    assert state.history[: kept.rounds] == kept.history, "a committed round was made anew"
    assert all(set(p.answered) == set(TRAIN) for p in state.history)
    assert any(e.event == "round-committed" for e in d.log(SERVER))
    assert not d.processes(), "a process outlived its verb"
    assert same_weights(state, undisturbed(d, tmp_path / "near"))


def test_a_killed_site_is_named_and_comes_back(tmp_path) -> None:
    with drill(tmp_path, rounds=100, deadline=15.0) as d:
        d.start(SERVER, *SITES, LEAD)
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
        for name in (LEAD, *SITES, SERVER):
            d.end(name)
    assert not wrong
    assert not d.processes()
