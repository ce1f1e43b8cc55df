"""The site's half of a job in this process: what its policy forbids, and what it logs of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import THIN
from federation_kits import make_kits

import gliofed
from gliofed.calibration.statistics import StatisticsRequest
from gliofed.deployment.client_executor import ClientExecutor
from gliofed.deployment.kit import open_kit
from gliofed.deployment.training_job import make_job
from gliofed.errors import PolicyError
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.messages import CalibrationRequest, ScoresRequest, save_request
from gliofed.models.network import network_from_spec
from gliofed.runtime.device import Device

NONCE = "0" * 32
CPU = Device(torch.device("cpu"), bf16=False)
WEIGHTS = network_from_spec(THIN, 0).state_dict()


@pytest.fixture
def study(tiny_study):
    data = dataclasses.replace(tiny_study.data, train=("north", "south"), external=("c",))
    return dataclasses.replace(tiny_study, data=data)


@pytest.mark.parametrize(
    "request_",
    [
        ScoresRequest("run", NONCE, 2, WEIGHTS),
        CalibrationRequest("run", NONCE, 2, StatisticsRequest("count"), WEIGHTS),
    ],
)
def test_scores_that_the_policy_forbids_are_refused_and_logged(tmp_path, study, request_) -> None:
    make_kits(tmp_path / "kits", "north", "south", "c")
    kit = open_kit(tmp_path / "kits/north", "site")
    tested = []
    site = SiteData("north", test=lambda weights: tested.append(weights) or ())
    setup = ClientSetup(study, 1, tmp_path, CPU)
    job = make_job(study, rounds=1)
    executor = ClientExecutor(**job.plain)
    executor._root = kit.root
    save_request(tmp_path / "request", request_)

    def respond(metrics) -> list[str]:
        executor._opened = Client(site, setup, SitePolicy(metrics=metrics))
        executor.respond(tmp_path / "request", tmp_path / "response")
        return [x.event for x in gliofed.read_log(kit.audit)]

    with pytest.raises(PolicyError, match="permits no test scores"):
        respond(("losses", "dice"))
    assert not tested
    lines = [(x.event, x.fields) for x in gliofed.read_log(kit.audit)]
    fields = {"run": job.run, "round": 2}
    assert lines == [("request-received", fields), ("policy-refused", fields)]
    assert respond(("scores",))[-1] == "response-sent"
    assert len(tested) == 1
