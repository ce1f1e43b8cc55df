"""Secret sums and noise between real FLARE processes over mutual TLS, with faults and lies.

Sums are exact, so a run ends with the bits of one in this process that lacks the same sites in the
same rounds. With noise no two runs are equal, but their ledgers are.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from campaign import in_training
from changed_site.false_sums import LIES
from drill import POLICY, Drill, drill, rounds_nearby, same_weights

from gliofed.deployment.federation_plan import LEAD, SERVER
from gliofed.deployment.kit import open_kit
from gliofed.federated.noise.accounting import mechanism_of
from gliofed.federated.noise.ledger import Ledger, RunCost
from gliofed.federated.privacy.opened import OpenedRounds
from gliofed.federated.privacy.server import SUMMED
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.wire import read_note

pytestmark = [pytest.mark.slow, pytest.mark.process]
TRAIN = ("east", "north", "south", "west")
"""Three of four have to help to open a sum."""
RULES = {"method": "synchronous", "privacy": "secure-sum"}
CHANGED = Path(__file__).parent / "changed_site"


@dataclasses.dataclass
class Without:
    """An engine without the responses of sites that are not in the sum of a round."""

    inner: object
    sites: Callable[[int], tuple[str, ...]]

    def send(self, request):
        note = read_note(request)
        there = self.sites(note["round"]) if note["kind"] == "train" else TRAIN
        for reply in self.inner.send(request):
            yield reply if reply.site in there else SiteReply(reply.site, None, "lost")


def summed(d: Drill, number: int) -> tuple[str, ...]:
    """The sites of a round's sum, as the server remembers them."""
    return OpenedRounds(d.work(SERVER) / "rounds" / SUMMED).sites(d.run, number)


def as_in_one_process(d: Drill, folder: Path) -> bool:
    """Whether this process gets the same bits from the sites that were in each round."""
    torch.set_num_threads(1)  # as each of the drill's processes
    wrap = lambda engine: Without(engine, lambda n: summed(d, n))  # noqa: E731
    near, _ = rounds_nearby(d, folder, wrap=wrap, rounds=d.committed.rounds)
    return same_weights(d.committed, near)


def absent(d: Drill) -> list[str]:
    """The training sites that are missing, by committed round."""
    return [" ".join(sorted({*TRAIN} - {*summed(d, n)})) for n in range(d.committed.rounds)]


def test_a_site_that_is_killed_in_mid_round_is_not_in_the_sum(tmp_path) -> None:
    rules = {**RULES, "commit": 1}
    with drill(tmp_path / "far", 2, train=TRAIN, batch=10, deadline=60, federation=rules) as d:
        d.start(SERVER, *d.sites, LEAD)
        d.wait(lambda: d.commits >= 1 and in_training(d), "north trains", poll=0.001)
        for pid in d.job_processes("north"):
            os.kill(pid, signal.SIGKILL)
        end = d.over()
        wrong, gone = d.is_sound(), absent(d)
    assert (end.state, wrong) == ("completed", "")
    assert gone[0] == ""
    assert gone[-1] == "north"
    assert "north" in d.committed.history[-1].refused
    assert as_in_one_process(d, tmp_path / "near")


@pytest.mark.campaign
def test_a_killed_site_returns_and_a_killed_server_repeats_rounds_without_it(tmp_path) -> None:
    """The server is killed after rounds without north that were not committed, and north is back
    when they are repeated: each is summed over the same sites as before."""
    rules = {**RULES, "commit": 100}
    with drill(tmp_path / "far", 4, train=TRAIN, batch=5, deadline=30, federation=rules) as d:
        d.start(SERVER, *d.sites, LEAD)
        d.wait(lambda: d.commits >= 1 and in_training(d), "north trains", poll=0.001)
        before = d.committed.rounds
        d.kill_all("north")
        d.wait(lambda: len(summed(d, before + 1)) == 3, "two rounds, one without north")
        d.kill_all(SERVER)
        assert d.committed.rounds == before
        first = [summed(d, n) for n in range(before, before + 2)]
        d.start("north", SERVER)
        end = d.over()
        wrong, gone = d.is_sound(), absent(d)
    print(gone)
    assert (end.state, wrong) == ("completed", "")
    assert first == [summed(d, n) for n in range(before, before + 2)]
    assert "north" in gone
    assert gone[-1] == ""
    assert as_in_one_process(d, tmp_path / "near")


@pytest.mark.campaign
def test_noise_is_spent_as_on_one_machine_and_a_budget_that_is_used_up_ends_a_part(
    tmp_path,
) -> None:
    """Between the approval at west and the run, another study uses up west's budget."""
    privacy = {"clip": 1.0, "noise": 2.0, "patients": 20, "delta": 1e-3}
    policy = POLICY + "privacy_epsilon = 20\nprivacy_delta = 1e-3\n"
    settings = {"train": TRAIN, "batch": 10, "federation": {**RULES, "commit": 1}}
    with drill(tmp_path / "far", 2, **settings, policy=policy, privacy=privacy) as d:
        d.start("west")
        d.wait(lambda: "approved" in [e.event for e in d.log("west")], "west has approved")
        other = RunCost("other", rate=1.0, noise=0.2, rounds=1)
        ledger_of(d, "west").spend("other", other, 0, "")
        d.start(SERVER, *(s for s in d.sites if s != "west"), LEAD)
        end = d.over()
        wrong, gone = d.is_sound(), absent(d)
        far = {s: dict(ledger_of(d, s).runs()) for s in TRAIN}
        rounds_nearby(d, tmp_path / "near", without=("west",))
        near = {s: ledger_of(d, s).runs()["near"] for s in TRAIN if s != "west"}
    rounds = mechanism_of(d.study).rounds
    assert (end.state, wrong, gone) == ("completed", "", ["west"] * rounds)
    assert all("policy" in p.refused["west"] for p in d.committed.history)
    assert list(far.pop("west")) == ["other"]
    assert {s: without_model(runs[d.run]) for s, runs in far.items()} == {
        s: without_model(cost) for s, cost in near.items()
    }
    assert {(c.answered, c.last + 1) for c in near.values()} == {(rounds, rounds)}


def ledger_of(d: Drill, site: str) -> Ledger:
    return Ledger(open_kit(d.place.kits / site, "site").ledger)


def without_model(cost: RunCost) -> RunCost:
    """Noise makes the weights, and so their digests, differ from run to run."""
    return dataclasses.replace(cost, model="")


STOPS = {
    "other_update": "max_gradient",
    "other_masks": "masks of its sites do not cancel",
    "old_masks": "masks of its sites do not cancel",
    "dealt_shares": "could not decrypt its share of site east",
}
"""Lies that stop the run, and what the lead reads. With the others it goes on."""
LEAVES_OUT = {"old_response": "differs", "other_keys": "keys refused"}
"""Lies by which east is not in the sum, and why it is named."""


@pytest.mark.campaign
def test_a_site_that_lies_stops_the_run_or_is_left_out(tmp_path, monkeypatch) -> None:
    """Each lie in turn, and honest rounds between; no wrong sum is ever part of the model."""
    lie = tmp_path / "lie"
    rules = {**RULES, "commit": 1}
    with drill(tmp_path / "far", 30, train=TRAIN, batch=5, deadline=60, federation=rules) as d:
        with monkeypatch.context() as changed:
            changed.setenv("PYTHONPATH", str(CHANGED), prepend=os.pathsep)
            changed.setenv("GLIOFED_TEST_SITE", "false_sums")
            changed.setenv("GLIOFED_TEST_LIE", str(lie))
            d.start("east")
        d.start(SERVER, *(s for s in d.sites if s != "east"), LEAD)
        for name in LIES:
            at = honest_rounds(d, lie)
            asked_anew = LIES[name][0] in ("keys", "shares")  # after a round without a site
            lie.write_text(f"old_response {name}" if asked_anew else name)
            if name in STOPS:
                d.wait(lambda n=name: STOPS[n] in d.status.why, name)
                assert d.status.state == "below quorum"
            elif name in LEAVES_OUT:
                d.wait(lambda n=name, a=at: LEAVES_OUT[n] in reasons(d, a), name)
            else:
                d.wait(lambda a=at: d.committed.rounds > a + 2, name)
            print(name, at, d.committed.rounds, d.status.why, absent(d)[at:], flush=True)
        d.end(LEAD)
        d.end(SERVER)
        gone = absent(d)
    assert {*gone} == {"", "east"}
    assert as_in_one_process(d, tmp_path / "near")


def reasons(d: Drill, after: int) -> str:
    """Why east was not in the sums of the rounds after `after`."""
    points = d.committed.history
    return "; ".join(p.refused.get("east", "") for p in points if p.numbers[0] > after)


def honest_rounds(d: Drill, lie: Path) -> int:
    """Have two rounds of all sites without a lie; the rounds by then."""
    lie.unlink(missing_ok=True)
    at = d.committed.rounds if d.committed else 0
    d.wait(lambda: d.committed is not None and absent(d)[at:][-2:] == ["", ""], "honest rounds")
    return d.committed.rounds
