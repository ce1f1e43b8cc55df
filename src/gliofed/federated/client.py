"""The site's half: answers a task with its own data, which never leaves it."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from gliofed.calibration.site_statistics import CalibrationCases
from gliofed.data.store import PreparedCase
from gliofed.errors import CheckpointError, DataError
from gliofed.evaluation.by_site_sums.sums import ScoreSums, score_sums, suppress_small_counts
from gliofed.evaluation.results import CaseResult, Role
from gliofed.federated.aggregation.blocks import change_norm, norm
from gliofed.federated.aggregation.moments import moments_of, weights_of
from gliofed.federated.governance.policy import (
    SitePolicy,
    enforce_counts,
    enforce_update,
    hide_labels,
)
from gliofed.federated.label_counts import LabelCounts, share_of_batch
from gliofed.federated.messages import (
    CountsResponse,
    ScoresResponse,
    StatisticsResponse,
    Task,
    load,
    load_task,
    save,
    save_counts,
    save_tested,
    save_told,
    save_update,
)
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress, ProgressOfPart
from gliofed.study import Study
from gliofed.training.loop import TrainingPlan, fit_epoch
from gliofed.training.optimiser import (
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
    with_steps,
)
from gliofed.types import Stat, Unknown, Update

SiteTest = Callable[[Mapping[str, Tensor]], Sequence[CaseResult]]
"""The model's weights to its answers for the site's own test cases, which do not leave it."""


class Client:
    """One hospital in a federation.

    The optimiser's moments stay at the site, one file a round, so that a round asked for again
    starts from exactly the state it started from before; where sites share them, they come and go
    with the model, and the site keeps none. policy: the hospital's, applied before
    anything is written into an answer; None where all sites are one person's. rejoins: whether a
    site that missed rounds goes on from the moments it has, or from none, rather than refusing.

    cases: to train on; a site that only tests has none. test: how a model answers for its test
    cases. Raises DataError where it has neither.
    """

    def __init__(
        self,
        name: str,
        cases: Sequence[PreparedCase],
        study: Study,
        seed: int,
        folder: Path,
        machine: Device,
        progress: Progress = NO_PROGRESS,
        policy: SitePolicy | None = None,
        rejoins: bool = False,
        test: SiteTest | None = None,
    ) -> None:
        if not cases and test is None:
            raise DataError(f"site {name} has no training case; take it out of data.train")
        self.name = name
        self._cases = cases if policy is None else hide_labels(policy, cases)
        self._policy, self._rejoins = policy, rejoins
        self._study = study
        self._seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:6], "big")
        self._folder = folder
        self._machine = machine
        self._progress = progress
        self._test = test
        self._smallest = 1 if policy is None else policy.smallest_count
        self._answered: tuple[tuple[str, int], tuple[CaseResult, ...]] | None = None

    def answer(self, asked: Path, answer: Path) -> None:
        """Do the task in the file `asked`; write what it asks for to the file `answer`.

        Raises DataError where the site has no case for it.
        """
        task = load_task(asked)
        if task.kind == "test":
            save_tested(answer, ScoresResponse(task.run, task.nonce, self.name, self._tested(task)))
        elif task.question is not None:
            held = tuple(r for r in self._answers(task) if r.role == "holdout")
            told = CalibrationCases(held, self._smallest).respond(task.question)
            save_told(answer, StatisticsResponse(task.run, task.nonce, self.name, told))
        elif not self._cases:
            raise DataError(f"site {self.name} has no training case: it can only test")
        elif task.kind == "count":
            own = self.counts
            counts = own if self._policy is None else enforce_counts(self._policy, own)
            save_counts(answer, CountsResponse(task.run, task.nonce, self.name, counts))
        else:
            save_update(answer, self._leaving(task, self._train(task)))

    def _leaving(self, task: Task, update: Update) -> Update:
        """The update as far as the policy lets it leave."""
        if self._policy is None:
            return update
        change = change_norm(weights_of(update.weights), task.weights)
        own = norm(weights_of(task.weights))
        return enforce_update(self._policy, update, self.counts, change, own)

    def _tested(self, task: Task) -> Mapping[Role, ScoreSums]:
        sums = score_sums(self._answers(task))
        return {role: suppress_small_counts(own, self._smallest) for role, own in sums.items()}

    def _answers(self, task: Task) -> tuple[CaseResult, ...]:
        """Of the task's model, kept until another is asked about."""
        if self._test is None:
            raise DataError(f"site {self.name} was not set up to test: it has no test cases")
        model = (task.run, task.round)
        if self._answered is None or self._answered[0] != model:
            if not task.weights:
                raise DataError(
                    f"site {self.name} was started anew amid the calibration, and the question "
                    "came without the model; the calibration goes on without the site"
                )
            self._answered = (model, tuple(self._test(task.weights)))
        return self._answered[1]

    @cached_property
    def counts(self) -> LabelCounts:
        """Of its training cases, as they are: what leaves is cut down by the policy."""
        return count_cases(self._cases)

    @cached_property
    def _net(self) -> MultiTaskNet:
        net = build_net(self._study.net.preset, self._study.net.stem, seed=0)
        return net.to(self._machine.device)

    def _train(self, task: Task) -> Update:
        train = self._study.train
        shared = moments_of(task.weights)
        batch = share_of_batch(train.batch, len(self._cases), task.cases)
        self._net.load_state_dict(weights_of(task.weights))
        optimiser = make_optimiser(self._net, train)
        if task.round > 0:
            steps = task.round * train.local_epochs * math.ceil(len(self._cases) / batch)
            state = with_steps(shared, steps) if shared else self._load_state(task)
            load_optimiser_state(self._net, optimiser, state)
        plan = TrainingPlan(
            study=self._study,
            cases=self._cases,
            class_weights=task.class_weights,
            seed=self._seed,
            epochs=train.rounds * train.local_epochs,
            batch=batch,
            machine=self._machine,
        )
        stats: dict[str, Stat] = defaultdict(Stat)
        for epoch in range(train.local_epochs):
            at = task.round * train.local_epochs + epoch
            part = ProgressOfPart(self._progress, epoch, train.local_epochs, self.name)
            found = fit_epoch(self._net, optimiser, plan, at, part)
            for name, stat in found.items():
                stats[name] += stat
        state = optimiser_state(self._net, optimiser)
        weights = {k: v.detach().to("cpu") for k, v in self._net.state_dict().items()}
        if shared:  # of a parameter that was never stepped, those of the task
            weights |= {name: state.get(name, own) for name, own in shared.items()}
        else:
            self._save_state(task, state)
        counts = self.counts
        return Update(
            run=task.run,
            round=task.round,
            nonce=task.nonce,
            site=self.name,
            weights=weights,
            cases=counts.cases,
            labelled=counts.labelled,
            stats=dict(stats),
        )

    def _save_state(self, task: Task, state: Mapping[str, Tensor]) -> None:
        """Keep the state after this round and the one before, should this round be repeated."""
        save(self._folder / f"after-{task.round:05d}.safetensors", state, {"run": task.run})
        for old in sorted(self._folder.glob("after-*.safetensors"))[:-2]:
            old.unlink()

    def _load_state(self, task: Task) -> Mapping[str, Tensor]:
        path = self._folder / f"after-{task.round - 1:05d}.safetensors"
        if not path.is_file() and self._rejoins:
            earlier = [p for p in sorted(self._folder.glob("after-*.safetensors")) if p < path]
            if not earlier:
                return {}
            path = earlier[-1]
        if not path.is_file():
            raise CheckpointError(
                f"site {self.name}: {path} is missing, the optimiser state that round "
                f"{task.round} starts from; restore it, or start the run in a new folder"
            )
        tensors, note = load(path)
        if note.get("run") != task.run:
            raise CheckpointError(f"{path}: is of another run; choose another folder")
        return tensors


def count_cases(cases: Sequence[PreparedCase]) -> LabelCounts:
    """The counts of one site's training cases."""
    classes = {m.id: [0] * len(m.classes) for m in MARKERS}
    for prepared in cases:
        for name, found in classes.items():
            value = prepared.case.labels[name]
            if not isinstance(value, Unknown):
                found[BY_ID[name].classes.index(value)] += 1
    masks = sum(p.lesion is not None for p in cases)
    return LabelCounts(len(cases), masks, {k: tuple(v) for k, v in classes.items()})
