"""The training of one round at one site, and what the site keeps between rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from torch import Tensor

from gliofed.data.store import PreparedCase
from gliofed.errors import CheckpointError, UpdateError
from gliofed.federated.compression import RESIDUAL, compress
from gliofed.federated.label_counts import (
    LabelCounts,
    Pass,
    row_weights,
    share_of_batch,
)
from gliofed.federated.messages import TrainingRequest
from gliofed.federated.named_tensors import (
    Layout,
    join_tensors,
    layout_of,
    layout_of_kinds,
    split_tensors,
)
from gliofed.federated.noise.ledger import Ledger
from gliofed.federated.noise.site_rounds import NoisyGradients, PrivateRounds
from gliofed.federated.noise.stated_counts import stated_cases_a_round
from gliofed.federated.privacy.fixed_point import fixed_point_of
from gliofed.federated.schedule import Schedule, batches_of_pass
from gliofed.federated.strategies.halves import ClientRound
from gliofed.federated.strategies.table import strategy_named
from gliofed.federated.wire import load, save
from gliofed.models.network import MultiTaskNet, build_net, train_only, without_frozen
from gliofed.models.optimiser import (
    KINDS,
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
)
from gliofed.runtime.device import Device
from gliofed.runtime.progress import Progress, ProgressOfPart
from gliofed.study import Study
from gliofed.training.loop import TrainingPlan, add_gradient, cases_of_batch, fit, make_batches
from gliofed.types import TensorsByKind, Update


@dataclass(frozen=True)
class ClientSetup:
    """How a client works.

    seed: of the run; the order of cases, patches, augmentation and dropout follow from it and from
    the names of site and case. folder: of what the site keeps between rounds. rejoins: whether a
    site that missed rounds continues from the newest state that it has, or without one; else it
    fails. ledger: of what studies with `[privacy]` have spent at the site; None for one in
    `folder`. network: of `training_network`, where sites that work in turn share one; None for a
    network of the site's own.
    """

    study: Study
    seed: int
    folder: Path
    device: Device
    rejoins: bool = False
    ledger: Path | None = None
    network: Callable[[], MultiTaskNet] | None = None


def training_network(study: Study, machine: Device) -> Callable[[], MultiTaskNet]:
    """Returns the network to train in, the same one at each call; built at the first.

    A site loads all weights of a round into it, so nothing of another site's round is left there.
    """
    return cache(lambda: build_net(study.net, seed=0).to(machine.device))


class ClientTraining:
    """Works on training requests with the cases of one site.

    least: fewest cases behind one gradient (`SitePolicy.min_batch`). Tensors that the strategy
    keeps at the site are in one file a round: the newest, and the newest at each of the last two
    commits, so that a round that is repeated starts from exactly the same state.
    """

    def __init__(
        self,
        site: str,
        cases: Sequence[PreparedCase],
        setup: ClientSetup,
        least: int,
        progress: Progress,
    ) -> None:
        self._site, self._cases, self._setup, self._least = site, cases, setup, least
        self._progress = progress
        self._strategy = strategy_named(setup.study.federation.method)

    @cached_property
    def _net(self) -> MultiTaskNet:
        setup = self._setup
        return (setup.network or training_network(setup.study, setup.device))()

    @cached_property
    def model(self) -> Layout:
        """The tensors of the study's network, without values."""
        return layout_of(self._net.state_dict())

    @property
    def server_state(self) -> Layout:
        """The tensors of the strategy that a training request has beside the model's."""
        trained = without_frozen(self.model, self._setup.study.frozen)
        return layout_of_kinds(trained, self._strategy.request)

    @cached_property
    def _parameters(self) -> Mapping[str, Tensor]:
        """Those that are trained; nothing is sent of the others."""
        return train_only(self._net, without_frozen(self.model, self._setup.study.frozen))

    def train(self, request: TrainingRequest, counts: LabelCounts) -> Update:
        """The update of one round. counts: of all training cases of the site."""
        if not self._strategy.takes_steps:
            return self._gradient(request)
        self._load(request)
        return self._local_steps(request, counts)

    def draws(self, request: TrainingRequest) -> int:
        """How many cases of the round's batch are this site's."""
        return cases_of_batch(self._joint_plan(request), request.round)

    def _load(self, request: TrainingRequest) -> None:
        self._net.load_state_dict(request.weights)
        self._net.zero_grad(set_to_none=True)

    def _joint_plan(self, request: TrainingRequest) -> TrainingPlan:
        """The site's part of the joint batches. Raises UpdateError for too many batches."""
        if request.batches > max(1, request.cases):
            raise UpdateError(
                f"the request has {request.batches} batches a pass for {request.cases} cases"
            )
        study = self._setup.study
        whole = Pass(request.labelled, request.batches, request.class_weights)
        return TrainingPlan(
            study=study,
            sites={self._site: self._cases},
            task_weights=row_weights(study.loss, whole),
            class_weights=request.class_weights,
            seed=self._setup.seed,
            batches=request.batches,
            steps=request.rounds,
            machine=self._setup.device,
            least=self._least,
        )

    def _gradient(self, request: TrainingRequest) -> Update:
        """The gradient of this site's part of the joint batch."""
        plan = self._joint_plan(request)
        (batch,) = make_batches(plan, range(request.round, request.round + 1))
        empty = Update(request.run, request.round, request.nonce, self._site, {}, 0, {}, {})
        self._progress.update(1, 1, self._site)
        if batch is None:
            return empty
        self._load(request)
        stats = add_gradient(self._net, plan, batch)
        if not stats:  # no case of it has a label or a mask
            return empty
        half = self._strategy.client(self._work(request, {}))
        cases = len(batch.has_mask)
        whole = dataclasses.replace(empty, tensors=half.tensors(), cases=cases, stats=stats)
        return self.compressed(request, whole)

    def compressed(self, request: TrainingRequest, update: Update) -> Update:
        """The update as it is sent; what rounding took away is kept for the next one."""
        study = self._setup.study
        how = study.federation.compress
        kept = self._load_state(request) if how != "none" else {}
        unit = fixed_point_of(study, sum(t.numel() for t in update.tensors.values())).unit
        tensors, extra, residual = compress(update.tensors, how, kept.get(RESIDUAL, {}), unit)
        if residual:
            self._save_state(request, {RESIDUAL: residual})
        return dataclasses.replace(update, tensors=tensors, extra=extra)

    @cached_property
    def _noisy(self) -> NoisyGradients:
        setup = self._setup
        return NoisyGradients(self._site, self._cases, setup.study, setup.seed, setup.device)

    def private_rounds(self, ledger: Ledger) -> PrivateRounds:
        """The rounds of a study with `[privacy]`, which `ledger` counts."""
        return PrivateRounds(self._noisy, ledger, self._setup.folder)

    def noisy_gradient(self, request: TrainingRequest) -> Update:
        """The update of a round with `[privacy]`, not compressed.

        Its number of cases follows from the study, and it has no statistics.
        """
        self._load(request)
        self._progress.update(1, 1, self._site)
        return Update(
            run=request.run,
            round=request.round,
            nonce=request.nonce,
            site=self._site,
            tensors=self._noisy.compute(self._net, self._parameters, request.round),
            cases=stated_cases_a_round(self._setup.study),
            labelled={},
            stats={},
        )

    def _local_steps(self, request: TrainingRequest, counts: LabelCounts) -> Update:
        """The weights after local epochs or steps with the site's own AdamW."""
        study = self._setup.study
        batch = share_of_batch(study.train.batch, len(self._cases), request.cases)
        batches = batches_of_pass(len(self._cases), batch)
        own = Pass(counts.labelled, batches, request.class_weights)
        federation = study.federation
        steps = federation.local_steps or federation.local_epochs * batches
        plan = TrainingPlan(
            study=study,
            sites={self._site: self._cases},
            task_weights=row_weights(study.loss, own),
            class_weights=request.class_weights,
            seed=self._setup.seed,
            batches=batches,
            steps=request.rounds * steps,
            machine=self._setup.device,
        )
        state = self._load_state(request) if request.round > 0 else {}
        optimiser = make_optimiser(self._parameters, study.optimisation)
        load_optimiser_state(
            self._parameters, optimiser, {k: v for k, v in state.items() if k in KINDS}
        )
        half = self._strategy.client(self._work(request, state))
        first = request.round * steps
        stats = fit(
            self._net,
            optimiser,
            plan,
            range(first, first + steps),
            ProgressOfPart(self._progress, 0, 1, self._site),
            half.correct,
        )
        moments = optimiser_state(self._parameters, optimiser)
        self._save_state(request, {**moments, **half.state()})
        return Update(
            run=request.run,
            round=request.round,
            nonce=request.nonce,
            site=self._site,
            tensors=half.tensors(),
            cases=counts.cases,
            labelled=counts.labelled,
            stats=stats,
            extra=half.extra(),
        )

    def _work(self, request: TrainingRequest, state: TensorsByKind) -> ClientRound:
        return ClientRound(
            config=self._setup.study.federation,
            parameters=self._parameters,
            weights=request.weights,
            server_state=request.state,
            site_state=state,
        )

    def _save_state(self, request: TrainingRequest, state: TensorsByKind) -> None:
        """Write the state after this round; keep those that a repeated round may start from."""
        folder = self._setup.folder
        study = self._setup.study
        every = self._strategy.takes_steps or study.privacy is not None
        commit = 1 if every else study.federation.commit
        schedule = Schedule(request.batches, request.rounds, commit)
        path = folder / f"after-{request.round:05d}.safetensors"
        save(path, join_tensors({}, state), {"run": request.run}, lasting=False)
        files = {_round_of(f): f for f in folder.glob("after-*.safetensors")}
        for old in files.keys() - _needed(files.keys(), request.round, schedule):
            files[old].unlink()

    def _load_state(self, request: TrainingRequest) -> TensorsByKind:
        """The state after the round before; empty at a site that rejoins without one."""
        folder = self._setup.folder
        path = folder / f"after-{request.round - 1:05d}.safetensors"
        if not path.is_file() and (self._setup.rejoins or not self._strategy.takes_steps):
            earlier = [p for p in sorted(folder.glob("after-*.safetensors")) if p < path]
            if not earlier:
                return {}
            path = earlier[-1]
        if not path.is_file():
            raise CheckpointError(
                f"site {self._site}: {path} is missing, the optimiser state that round "
                f"{request.round} starts from; restore it, or start the run in a new folder"
            )
        tensors, note = load(path)
        if note.get("run") != request.run:
            raise CheckpointError(f"{path}: belongs to another run; choose another folder")
        return split_tensors(tensors)[1]


def _round_of(path: Path) -> int:
    return int(path.stem.removeprefix("after-"))


def _needed(rounds: Collection[int], now: int, schedule: Schedule) -> set[int]:
    """The rounds whose state is newest now, or was at one of the last two commits."""
    commits = [r for r in range(now + 1, 0, -1) if schedule.commits_after(r)][:2]
    before = ([r for r in rounds if r < end] for end in (now + 1, *commits))
    return {max(earlier) for earlier in before if earlier}
