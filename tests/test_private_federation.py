"""Noise between hospitals: the ledger in a site's kit, and a budget that ends a site's part.

The executors of FLARE's jobs respond in this process, with policies, approvals and failure reports.
"""

from __future__ import annotations

import dataclasses

import pytest
from federation_kits import make_kits
from test_private_training import OPEN, PRIVACY, federate
from test_private_training import hospitals as two  # noqa: F401

import gliofed
from gliofed.deployment.client_executor import ClientExecutor
from gliofed.deployment.kit import open_kit
from gliofed.deployment.site_data import SiteDataPaths, write_data_paths
from gliofed.deployment.training_job import make_job
from gliofed.errors import GliofedError
from gliofed.federated.governance.approval import approve
from gliofed.federated.governance.failure import parse_failure
from gliofed.federated.governance.policy import load_policy
from gliofed.federated.noise.ledger import LEDGER, Ledger
from gliofed.federated.server.exchange import SiteReply
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.reporting.federation.tables import fault_lines

POLICY = (
    "min_cases = 1\nmin_batch = 1\nsmallest_count = 1\nprivacy_epsilon = {}\nprivacy_delta = 1e-5\n"
)
SITES = {"a": "north", "b": "south"}


@pytest.fixture
def study(tiny_study):
    data = dataclasses.replace(tiny_study.data, train=tuple(SITES.values()), holdout=0.0)
    train = dataclasses.replace(tiny_study.train, epochs=2, batch=4)
    rules = dataclasses.replace(tiny_study.federation, quorum=1)
    return dataclasses.replace(
        tiny_study, data=data, train=train, federation=rules, privacy=PRIVACY
    )


class Executors:
    """An engine whose sites are executors, as between hospitals."""

    def __init__(self, study, kits, cases, budgets):
        self.folder, self.executors = kits, {}
        job = make_job(study, rounds=4)
        for name, own in cases.items():
            kit = open_kit(kits / name, "site")
            kit.policy.write_text(POLICY.format(budgets[name]))
            approve(job.study, "Dr Who", kit.approvals, load_policy(kit.policy))
            write_data_paths(kit, SiteDataPaths(kits, kits))
            executor = ClientExecutor(**job.plain)
            executor.prepare(kit.root)
            executor._cases = tuple(
                dataclasses.replace(c, case=dataclasses.replace(c.case, site=name)) for c in own
            )
            self.executors[name] = executor

    def send(self, request):
        for name, executor in self.executors.items():
            file = self.folder / f"response-{name}"
            try:
                executor.respond(request, file)
                yield SiteReply(name, file)
            except GliofedError as error:
                report = executor.failure(error, self.folder / name)
                yield SiteReply(name, None, parse_failure(report).text)


@pytest.fixture
def trained(study, two, tmp_path):  # noqa: F811
    """A function that trains under budgets by site; the state and the kits."""

    def train(**budgets):
        kits = tmp_path / "kits"
        make_kits(kits, *SITES.values(), "c")
        engine = Executors(study, kits, {SITES[k]: own for k, own in two.items()}, budgets)
        state = run_rounds(engine, FederatedRun(study, "run", 1, tmp_path / "rounds"))
        return state, kits

    return train


@pytest.mark.slow
def test_rounds_and_ledgers_are_those_of_one_machine(trained, study, two, tmp_path) -> None:  # noqa: F811
    state, kits = trained(north=1e4, south=1e4)
    own = dataclasses.replace(study, data=dataclasses.replace(study.data, train=("a", "b")))
    near = federate(two, own, tmp_path / "near", policy=OPEN)
    assert (state.rounds, state.schedule) == (near.rounds, near.schedule)
    assert [p.merged for p in state.history] == [{"north": 1, "south": 1}] * 4
    for alias, name in SITES.items():
        far = Ledger(kits / name / "gliofed" / LEDGER).runs()["run"]
        one = Ledger(tmp_path / "near/sites" / alias / LEDGER).runs()["run"]
        assert dataclasses.replace(far, model="") == dataclasses.replace(one, model="")
        assert (far.answered, far.rounds) == (4, 4)


@pytest.mark.slow
def test_a_site_without_budget_is_named_to_the_lead_and_sends_no_gradient(trained) -> None:
    state, kits = trained(north=1e4, south=0.1)
    assert [p.merged for p in state.history] == [{"north": 1}] * 4
    lines = fault_lines(state.history)
    assert [(x.site, x.rounds) for x in lines] == [("south", n) for n in "4321"]
    assert all("PolicyError: refused by the site's policy" in x.why for x in lines)
    assert not (kits / "south/gliofed" / LEDGER).exists()
    events = [x.event for x in gliofed.read_log(kits / "south/gliofed/audit.jsonl")]
    assert events.count("policy-refused") == 4
    reports = [p.read_text() for p in (kits / "south/gliofed/work/reports").glob("*.txt")]
    assert len(reports) == 4
    assert all("policy allows 0.1 over all studies (privacy_epsilon)" in x for x in reports)
