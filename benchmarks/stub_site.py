"""Classes that benchmarks of the transport name in their jobs; the processes import this module.

`StubServerController` and `StubClientExecutor` are the server and the client of gliofed with
networks of chosen sizes and a site that does not train. Everything else (approval, policy, wire
files, gate, merge, commit, audit log) is unchanged. `PeerFedAvg` and `PeerExecutor` are FLARE's
own FedAvg with tensors, and the smallest client for it. All change each weight by the same small
amount.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from loopback import DRAWN
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.app_opt.pt.fedavg import PTFedAvg
from nvflare.fuel.utils import fobs
from torch import Tensor

from gliofed.deployment.client_executor import ClientExecutor
from gliofed.deployment.kit import Kit
from gliofed.deployment.server_controller import ServerController
from gliofed.federated.client import Client, ClientSetup, SiteData
from gliofed.federated.client_training import ClientTraining
from gliofed.federated.governance.approval import parse_study_text
from gliofed.federated.governance.policy import load_policy
from gliofed.federated.label_counts import LabelCounts
from gliofed.federated.messages import TrainingRequest
from gliofed.markers import MARKERS
from gliofed.models.network import build_net
from gliofed.models.presets import BASE, PRESETS
from gliofed.runtime.device import this_machine
from gliofed.runtime.processes import end_with_starter
from gliofed.study import NetworkConfig, Study
from gliofed.types import Stat, Update

AWAY = "GLIOFED_STUB_AWAY"
"""Environment variable: share of rounds in which a stub site fails."""
WIDTHS = {
    6: (16, 32, 64, 104),
    12: (24, 44, 92, 184),
    30: (40, 72, 144, 304),
    150: (48, 96, 208, 400, 512),
}
"""Megabytes of a model: channels of a network of that size."""
STEP = 1e-5
PRESETS.update({  # type: ignore[attr-defined]  # (only here is the table added to)
    f"mb{size}": dataclasses.replace(BASE, widths=widths) for size, widths in WIDTHS.items()
})  # fmt: skip


def model(megabytes: int) -> dict[str, Tensor]:
    """The network's weights."""
    return dict(build_net(NetworkConfig(f"mb{megabytes}", (1, 1, 1)), seed=1).state_dict())


def changed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that every stub site returns."""
    return {k: v + STEP for k, v in weights.items()}


class StubServerController(ServerController):
    """The server of gliofed; a class of this module, so that its networks are registered."""


class StubSite(Client):
    """A site of cases that exist in its counts alone."""

    def __init__(self, kit: Kit, study: Study, folder: Path) -> None:
        setup = ClientSetup(study, seed=1, folder=folder, device=this_machine())
        data = SiteData(kit.name, test=lambda weights: ())
        super().__init__(data, setup, load_policy(kit.policy))
        self._cases = ("not looked at",)
        self._training = StubTraining(kit.name)

    @cached_property
    def counts(self) -> LabelCounts:
        return LabelCounts(
            10 * DRAWN, 10 * DRAWN, {m.id: (10, *(5 for _ in m.classes[1:])) for m in MARKERS}
        )


class StubTraining(ClientTraining):
    """In place of training: a gradient of the request's weights with a small change."""

    def __init__(self, site: str) -> None:
        self._site = site
        self._chance = random.Random(f"{site}/{time.time_ns()}")

    def draws(self, request: TrainingRequest) -> int:
        return DRAWN

    def train(self, request: TrainingRequest, counts: LabelCounts) -> Update:
        if self._chance.random() < float(os.environ.get(AWAY, "0")):
            raise RuntimeError("away, as set by the benchmark")
        return Update(
            run=request.run,
            round=request.round,
            nonce=request.nonce,
            site=self._site,
            tensors=changed(request.weights),
            cases=DRAWN,
            labelled={},
            stats={"mask": Stat(10.0, 20.0)},
        )


class StubClientExecutor(ClientExecutor):
    """The client of gliofed with a stub site."""

    @cached_property
    def _client(self) -> Client:
        study = parse_study_text(self._job.study)
        return StubSite(self._kit, study, self._kit.work / self._job.run / "state")


class PeerFedAvg(PTFedAvg):
    """FLARE's FedAvg; records the time at which each round's model is on the disk."""

    def __init__(self, megabytes: int, beats: str, **settings: Any) -> None:
        super().__init__(model=model(megabytes), persistor_id="", **settings)
        end_with_starter()
        self._beats = Path(beats)

    def save_model(self, model: FLModel) -> None:
        super().save_model(model)
        with self._beats.open("a") as file:
            file.write(json.dumps(time.time()) + "\n")


class PeerExecutor(Executor):
    """The smallest client: weights in, changed weights out."""

    def __init__(self) -> None:
        super().__init__()
        end_with_starter()
        fobs.register(TensorDecomposer)

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        request = FLModelUtils.from_shareable(shareable)
        response = FLModel(params=changed(request.params), params_type=ParamsType.FULL)
        return FLModelUtils.to_shareable(response)
