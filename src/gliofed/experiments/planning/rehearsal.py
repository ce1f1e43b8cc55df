"""A short rehearsal of a model run in a worker process: real steps, messages and commits, timed.

Every case of the study has the scans of a case that is prepared. So counts, batches, messages and
commits are those of the run, and a step has the study's own network, patch and batch.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import GliofedError
from gliofed.experiments.case_scores import score_case
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.plain_training import training_plan
from gliofed.experiments.planning.traffic import Exchange, RecordingEngine
from gliofed.experiments.predictions import CasePredictor
from gliofed.experiments.run_context import RunContext
from gliofed.experiments.train_and_test import local_federation
from gliofed.federated.checkpoint import CommittedRound, commit
from gliofed.federated.schedule import Schedule
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.strategies.table import strategy_named
from gliofed.models.initial_weights import initial_weights
from gliofed.models.network import build_net, train_only, without_frozen
from gliofed.models.optimiser import make_optimiser, optimiser_state
from gliofed.runtime.device import (
    Device,
    accelerator_peak,
    keep_memory,
    process_environments,
    this_machine,
)
from gliofed.runtime.memory import peak_memory
from gliofed.runtime.progress import NO_PROGRESS, NoProgress, Progress
from gliofed.runtime.workers import ProcessCrash, WorkerPool
from gliofed.study import FEDERATED, Study
from gliofed.training.loop import fit
from gliofed.types import Case, RoundPoint

_REPEATS: Final = 3
_SECONDS: Final = 20.0
"""What one kind of measurement may take beyond its first turn."""


@dataclass(frozen=True)
class StandIn:
    """A case, and the key of the entry that it has or that stands in for its own."""

    case: Case
    key: str


@dataclass(frozen=True)
class RehearsalJob:
    """One model run to rehearse. scored: case that is predicted and scored, with its own entry."""

    study: Study
    run: ModelRun
    cases: tuple[StandIn, ...]
    scored: StandIn
    store: Path


@dataclass(frozen=True)
class Rehearsal:
    """What was measured; seconds are those of each turn after the first one.

    step, single: of a training step on `train.batch` cases, and on one. round: of a round with one
    step at each hospital; empty for a model that is not federated. test: of one prediction with its
    scores. exchanges: messages of the rounds. committed, point: bytes of a commit with one
    point of its history, and of a point. site_state: mean bytes that a hospital keeps of a round.
    peak, device_peak: bytes of memory of a process, and of the accelerator (0 without one).
    """

    step: tuple[float, ...]
    single: tuple[float, ...]
    round: tuple[float, ...]
    test: tuple[float, ...]
    exchanges: tuple[Exchange, ...]
    committed: int
    point: int
    site_state: int
    peak: int
    device_peak: int


def rehearse(job: RehearsalJob, processes: int, threads: int) -> Rehearsal:
    """Rehearse a run in `processes` processes at once, as models are trained; times of all of them.

    threads: of torch in all processes together. Raises GliofedError, also of a process.
    """
    each = max(1, threads // processes)
    environments = process_environments(processes)
    with WorkerPool(partial(_set_up, each), processes, each, environments) as pool:
        outcomes = [outcome for _, outcome in pool.run([job] * processes)]
    found = [outcome for outcome in outcomes if not isinstance(outcome, ProcessCrash)]
    if not found:
        raise _crash_error(job, outcomes)
    return dataclasses.replace(
        found[0],
        step=tuple(t for one in found for t in one.step),
        single=tuple(t for one in found for t in one.single),
        round=tuple(t for one in found for t in one.round),
        test=tuple(t for one in found for t in one.test),
        peak=max(one.peak for one in found),
    )


def _set_up(threads: int) -> Callable[[RehearsalJob, Progress], Rehearsal]:
    torch.set_num_threads(threads)
    keep_memory()

    def work(job: RehearsalJob, progress: Progress) -> Rehearsal:
        with tempfile.TemporaryDirectory(prefix="gliofed-plan-") as folder:
            return rehearse_here(job, Path(folder))

    return work


def rehearse_here(job: RehearsalJob, folder: Path) -> Rehearsal:
    """Rehearse a run in this process. folder: for messages and commits."""
    context = RunContext(job.study, folder, this_machine(), _prepared(job))
    step, single = (_time_steps(context, job.run, n) for n in (job.study.train.batch, 1))
    test = _time_test(context.machine, job)
    rehearse_run = _federated if job.run.model == FEDERATED else _plain
    rounds, exchanges, state = rehearse_run(context, job.run)
    own = job.run.folder(folder)
    states = [
        max(site.glob("after-*")) for site in own.glob("sites/*") if any(site.glob("after-*"))
    ]
    points = [len(json.dumps(dataclasses.asdict(point))) + 2 for point in state.history]
    return Rehearsal(
        step=step,
        single=single,
        round=rounds,
        test=test,
        exchanges=exchanges,
        committed=max(own.glob("rounds/round-*")).stat().st_size - sum(points[:-1]),
        point=points[-1],
        site_state=sum(f.stat().st_size for f in states) // len(job.run.sites),
        peak=peak_memory(),
        device_peak=accelerator_peak(context.machine),
    )


def _prepared(job: RehearsalJob) -> Mapping[str, PreparedCase]:
    """Every case, with the scans of its stand-in, and a mask where it has one itself."""
    store = PreparedStore(job.store)
    opened: dict[str, PreparedCase] = {}
    for own in job.cases:
        if own.key not in opened:
            opened[own.key] = store.open(own.key, own.case)
    prepared = {
        str(own.case): dataclasses.replace(opened[own.key], case=own.case) for own in job.cases
    }
    return {
        name: p if p.case.mask is not None else dataclasses.replace(p, mask=None, lesion=None)
        for name, p in prepared.items()
    }


def _time_steps(context: RunContext, run: ModelRun, batch: int) -> tuple[float, ...]:
    """Seconds of training steps on `batch` cases of all hospitals, after the first one."""
    train = dataclasses.replace(context.study.train, batch=batch)
    sized = dataclasses.replace(context, study=dataclasses.replace(context.study, train=train))
    study, plan = run.effective_study(sized.study), training_plan(sized, run)
    net = build_net(study.net, run.seed).to(context.machine.device)
    trained = without_frozen(net.state_dict(), study.frozen)
    optimiser = make_optimiser(train_only(net, trained), study.optimisation)

    def steps(first: int, count: int) -> list[float]:
        clock = _Clock()
        fit(net, optimiser, plan, range(first, first + count), clock)
        return clock.turns

    return tuple(steps(1, _turns(steps(0, 1)[0])))


def _time_test(machine: Device, job: RehearsalJob) -> tuple[float, ...]:
    """Seconds of a prediction of one case with its scores, after the first one."""
    study = job.run.effective_study(job.study)
    net = build_net(study.net, job.run.seed).to(machine.device)
    predictor = CasePredictor(net, machine, study.score.mirror)
    scan = PreparedStore(job.store).open(job.scored.key, job.scored.case)

    def tests(count: int) -> list[float]:
        clock = _Clock()
        for _ in range(count):
            score_case(predictor.predict(scan), scan, job.run.origin("external"))
            clock.update(1, 1, "")
        return clock.turns

    return tuple(tests(_turns(tests(1)[0])))


_Rehearsed = tuple[tuple[float, ...], tuple[Exchange, ...], CommittedRound]
"""Seconds of rounds after the first one, their messages, and the last commit."""


def _federated(context: RunContext, run: ModelRun) -> _Rehearsed:
    """Real rounds, each with one step at each hospital."""
    study = context.study
    if strategy_named(study.federation.method).takes_steps:
        federation = dataclasses.replace(study.federation, local_steps=1)
        study = dataclasses.replace(study, federation=federation)
        context = dataclasses.replace(context, study=study)
    hospitals, federated = local_federation(context, run, NO_PROGRESS)
    engine, clock = RecordingEngine(hospitals), _Clock()

    def should_stop(done: int) -> bool:
        if done:
            clock.update(done, done, "")
        else:
            clock.start()
        return done > 1 and done > _turns(clock.turns[0])

    state = run_rounds(engine, federated, should_stop=should_stop)
    return tuple(clock.turns[1:] or clock.turns), tuple(engine.exchanges), state


def _plain(context: RunContext, run: ModelRun) -> _Rehearsed:
    """A commit after one step."""
    study, plan = run.effective_study(context.study), training_plan(context, run)
    net = build_net(study.net, run.seed)
    weights = initial_weights(study, run.seed)
    net.load_state_dict(weights)
    net.to(context.machine.device)
    parameters = train_only(net, without_frozen(weights, study.frozen))
    optimiser = make_optimiser(parameters, study.optimisation)
    stats = fit(net, optimiser, plan, range(1))
    state = CommittedRound(
        run.run_id(context.study, context.prepared),
        1,
        weights,
        (RoundPoint.of_stats(0, 1, stats, 1.0),),
        optimiser_state(parameters, optimiser),
        Schedule(plan.batches, study.train.epochs, 1),
        {run.model: run.counts(context.prepared)},
    )
    commit(run.folder(context.out) / "rounds", state)
    return (), (), state


def _turns(first: float) -> int:
    """Turns of a measurement whose first one took so many seconds."""
    return max(1, min(_REPEATS, int(_SECONDS / max(first, 1e-6))))


class _Clock(NoProgress):
    """Seconds between one update and the next."""

    def __init__(self) -> None:
        self.turns: list[float] = []
        self.start()

    def start(self) -> None:
        """Begin now."""
        self._last = time.perf_counter()

    def update(self, done: float, total: float, detail: str) -> None:
        now = time.perf_counter()
        self.turns.append(now - self._last)
        self._last = now


def _crash_error(job: RehearsalJob, outcomes: Iterable[Rehearsal | ProcessCrash]) -> GliofedError:
    reasons = {o.reason for o in outcomes if isinstance(o, ProcessCrash)}
    return GliofedError(
        f"the rehearsal of {job.run}: {', '.join(sorted(reasons))}; a training step needs more "
        "than this machine has: set a smaller train.batch or grid.patch, or a coarser "
        "grid.spacing_mm"
    )
