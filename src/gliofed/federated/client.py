"""The client of one hospital: responds to requests with its own cases, which never leave it."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gliofed.calibration.site_statistics import CalibrationCases
from gliofed.data.store import PreparedCase
from gliofed.errors import CheckpointError, DataError
from gliofed.evaluation.by_site_sums.sums import ScoreSums, score_sums, suppress_small_counts
from gliofed.evaluation.results import CaseResult, Role
from gliofed.federated.aggregation.blocks import change_norm, norm
from gliofed.federated.governance.policy import (
    SitePolicy,
    enforce_counts,
    enforce_update,
    hide_labels,
)
from gliofed.federated.label_counts import LabelCounts, share_of_batch
from gliofed.federated.messages import (
    CalibrationRequest,
    CountsRequest,
    CountsResponse,
    ScoresRequest,
    ScoresResponse,
    StatisticsResponse,
    TrainingRequest,
    load_request,
    save_counts,
    save_scores,
    save_statistics,
    save_update,
)
from gliofed.federated.wire import load, save
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress, ProgressOfPart
from gliofed.study import Study
from gliofed.training.loop import TrainingPlan, fit_epoch
from gliofed.training.optimiser import (
    load_moments,
    load_optimiser_state,
    make_optimiser,
    moments_of,
    optimiser_state,
)
from gliofed.types import OptimiserMoments, Stat, Unknown, Update

SiteTest = Callable[[Mapping[str, Tensor]], Sequence[CaseResult]]
"""From a model's weights to its results for the site's test cases, which do not leave the site."""


@dataclass(frozen=True)
class SiteData:
    """The cases of one site. cases: to train on; none at a site that only tests.

    test: runs a model on the test cases; None where the site does not test. Raises DataError where
    there is neither.
    """

    name: str
    cases: Sequence[PreparedCase] = ()
    test: SiteTest | None = None

    def __post_init__(self) -> None:
        if not self.cases and self.test is None:
            raise DataError(f"site {self.name} has no training case; remove it from data.train")


@dataclass(frozen=True)
class ClientSetup:
    """How a client works.

    seed: of the run; the client's own random numbers follow from it and from the site's name.
    folder: of the optimiser's state. rejoins: whether a site that missed rounds continues from
    the newest state that it has, or without one; else it fails.
    """

    study: Study
    seed: int
    folder: Path
    device: Device
    rejoins: bool = False


class Client:
    """One hospital in a federation.

    Unless sites share the optimiser's moments, its state stays at the site, in one file a round: a
    round that is repeated starts from exactly the same state. policy: the hospital's, applied
    before anything is written into a response; None where one person runs all sites.
    """

    def __init__(
        self,
        data: SiteData,
        setup: ClientSetup,
        policy: SitePolicy | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        self.name = data.name
        self._cases = data.cases if policy is None else hide_labels(policy, data.cases)
        self._test = data.test
        self._setup, self._policy, self._progress = setup, policy, progress
        name = f"{setup.seed}/{data.name}"
        self._seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")
        self._smallest = 1 if policy is None else policy.smallest_count
        self._results: tuple[tuple[str, int], tuple[CaseResult, ...]] | None = None

    def respond(self, request_file: Path, response_file: Path) -> None:
        """Read a request from one file and write the response to the other.

        Raises DataError where the site has no case for it.
        """
        request = load_request(request_file)
        match request:
            case ScoresRequest():
                scores = ScoresResponse(
                    request.run, request.nonce, self.name, self._scores(request)
                )
                save_scores(response_file, scores)
            case CalibrationRequest():
                held_out = tuple(r for r in self._test_results(request) if r.role == "holdout")
                statistics = CalibrationCases(held_out, self._smallest).respond(request.statistics)
                save_statistics(
                    response_file,
                    StatisticsResponse(request.run, request.nonce, self.name, statistics),
                )
            case _ if not self._cases:
                raise DataError(f"site {self.name} has no training case: it can only test")
            case CountsRequest():
                counts = self.counts
                if self._policy is not None:
                    counts = enforce_counts(self._policy, counts)
                save_counts(
                    response_file, CountsResponse(request.run, request.nonce, self.name, counts)
                )
            case TrainingRequest():
                save_update(response_file, self._apply_policy(request, self._train(request)))

    def _apply_policy(self, request: TrainingRequest, update: Update) -> Update:
        """The update after the policy is applied."""
        if self._policy is None:
            return update
        change = change_norm(update.weights, request.weights)
        return enforce_update(self._policy, update, self.counts, change, norm(request.weights))

    def _scores(self, request: ScoresRequest) -> Mapping[Role, ScoreSums]:
        sums = score_sums(self._test_results(request))
        return {role: suppress_small_counts(own, self._smallest) for role, own in sums.items()}

    def _test_results(self, request: ScoresRequest | CalibrationRequest) -> tuple[CaseResult, ...]:
        """Results of the request's model, kept until a request for another model."""
        if self._test is None:
            raise DataError(f"site {self.name} was not set up to test: it has no test cases")
        model = (request.run, request.rounds)
        if self._results is None or self._results[0] != model:
            if request.weights is None:
                raise DataError(
                    f"site {self.name} was restarted during the calibration, and the request came "
                    "without the model; the calibration continues without the site"
                )
            self._results = (model, tuple(self._test(request.weights)))
        return self._results[1]

    @cached_property
    def counts(self) -> LabelCounts:
        """Of all training cases, before the policy is applied."""
        return count_cases(self._cases)

    @cached_property
    def _net(self) -> MultiTaskNet:
        net = self._setup.study.net
        return build_net(net.preset, net.stem, seed=0).to(self._setup.device.device)

    def _train(self, request: TrainingRequest) -> Update:
        train = self._setup.study.train
        batch = share_of_batch(train.batch, len(self._cases), request.cases)
        self._net.load_state_dict(request.weights)
        optimiser = make_optimiser(self._net, train)
        if request.round > 0 and request.moments is not None:
            steps = request.round * train.local_epochs * math.ceil(len(self._cases) / batch)
            load_moments(self._net, optimiser, request.moments, steps)
        elif request.round > 0:
            load_optimiser_state(self._net, optimiser, self._load_state(request))
        stats = self._fit(request, optimiser, batch)
        moments: OptimiserMoments | None = None
        if request.moments is not None:
            moments = moments_of(self._net, optimiser, before=request.moments)
        else:
            self._save_state(request, optimiser_state(self._net, optimiser))
        counts = self.counts
        return Update(
            run=request.run,
            round=request.round,
            nonce=request.nonce,
            site=self.name,
            weights={k: v.detach().to("cpu") for k, v in self._net.state_dict().items()},
            cases=counts.cases,
            labelled=counts.labelled,
            stats=stats,
            moments=moments,
        )

    def _fit(
        self, request: TrainingRequest, optimiser: torch.optim.AdamW, batch: int
    ) -> Mapping[str, Stat]:
        """Train for the local epochs of one round; the sums measured on the way."""
        train = self._setup.study.train
        plan = TrainingPlan(
            study=self._setup.study,
            cases=self._cases,
            class_weights=request.class_weights,
            seed=self._seed,
            epochs=train.rounds * train.local_epochs,
            batch=batch,
            machine=self._setup.device,
        )
        stats: dict[str, Stat] = defaultdict(Stat)
        for local_epoch in range(train.local_epochs):
            epoch = request.round * train.local_epochs + local_epoch
            part = ProgressOfPart(self._progress, local_epoch, train.local_epochs, self.name)
            of_epoch = fit_epoch(self._net, optimiser, plan, epoch, part)
            for name, stat in of_epoch.items():
                stats[name] += stat
        return dict(stats)

    def _save_state(self, request: TrainingRequest, state: Mapping[str, Tensor]) -> None:
        """Write the state after this round; keep the one before, in case the round is repeated."""
        folder = self._setup.folder
        save(folder / f"after-{request.round:05d}.safetensors", state, {"run": request.run})
        for old in sorted(folder.glob("after-*.safetensors"))[:-2]:
            old.unlink()

    def _load_state(self, request: TrainingRequest) -> Mapping[str, Tensor]:
        """The state after the round before; empty at a site that rejoins without one."""
        folder = self._setup.folder
        path = folder / f"after-{request.round - 1:05d}.safetensors"
        if not path.is_file() and self._setup.rejoins:
            earlier = [p for p in sorted(folder.glob("after-*.safetensors")) if p < path]
            if not earlier:
                return {}
            path = earlier[-1]
        if not path.is_file():
            raise CheckpointError(
                f"site {self.name}: {path} is missing, the optimiser state that round "
                f"{request.round} starts from; restore it, or start the run in a new folder"
            )
        tensors, note = load(path)
        if note.get("run") != request.run:
            raise CheckpointError(f"{path}: belongs to another run; choose another folder")
        return tensors


def count_cases(cases: Sequence[PreparedCase]) -> LabelCounts:
    """The counts of one site's training cases."""
    classes = {m.id: [0] * len(m.classes) for m in MARKERS}
    for prepared in cases:
        for name, counts in classes.items():
            value = prepared.case.labels[name]
            if not isinstance(value, Unknown):
                counts[BY_ID[name].classes.index(value)] += 1
    masks = sum(p.lesion is not None for p in cases)
    return LabelCounts(len(cases), masks, {k: tuple(v) for k, v in classes.items()})
