"""Seconds, bytes and memory of a study's networks, from what their rehearsals measured."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.planning.rehearsal import Rehearsal
from gliofed.federated.label_counts import share_of_batch
from gliofed.federated.schedule import Schedule, batches_of_pass, make_schedule
from gliofed.federated.strategies.table import strategy_named
from gliofed.models.network import build_net, is_personal
from gliofed.study import FEDERATED, PARENT, Study
from gliofed.types import Case

_MOMENTS: Final = 2
_KEPT: Final = 2
"""Commits of a model that stay on the disk, and states of a hospital."""


@dataclass(frozen=True)
class RunEstimate:
    """One network. steps: of its optimiser; rounds of a federated one. seconds: of training and of
    all its tests. bytes: that it keeps on the disk, without its model folder."""

    run: ModelRun
    steps: int
    training_seconds: float
    test_seconds: float
    bytes: int

    @property
    def seconds(self) -> float:
        """Of training and tests."""
        return self.training_seconds + self.test_seconds


def rehearsed_as(run: ModelRun) -> str:
    """The kind of run whose rehearsal holds for this one: federated, parent or "plain"."""
    return run.model if run.model in (FEDERATED, PARENT) else "plain"


def schedule_of(study: Study, run: ModelRun) -> Schedule:
    """The rounds of a run; of one that is not federated, one pass is one round of its commits."""
    own, cases = run.effective_study(study), _cases(run)
    if run.model == FEDERATED:
        return make_schedule(own, cases)
    return Schedule(batches_of_pass(cases, own.train.batch), own.train.epochs, 1)


def estimate_run(study: Study, run: ModelRun, measured: Rehearsal) -> RunEstimate:
    """One network of the study. measured: in the rehearsal of its kind."""
    own, schedule = run.effective_study(study), schedule_of(study, run)
    if run.model == FEDERATED:
        steps, each = schedule.rounds, _round_seconds(own, run, measured)
    else:
        steps = schedule.rounds * schedule.batches
        each = _step_seconds(own, measured, _cases(run) / schedule.batches)
    tests = len(run.test_cases) * statistics.median(measured.test)
    return RunEstimate(run, steps, steps * each, tests, _bytes(study, run, schedule, measured))


def _cases(run: ModelRun) -> int:
    return sum(map(len, run.sites.values()))


def _step_seconds(study: Study, measured: Rehearsal, cases: float) -> float:
    """Of a step on `cases` cases: a line through those on one case and on `train.batch`."""
    whole, one, batch = (
        statistics.median(measured.step),
        statistics.median(measured.single),
        study.train.batch,
    )
    if batch == 1:
        return whole
    return max(one, one + (cases - 1) * (whole - one) / (batch - 1))


def _round_seconds(study: Study, run: ModelRun, measured: Rehearsal) -> float:
    """Of a round of all hospitals, one after the other as on one machine.

    With local steps: those of all hospitals, and what a rehearsed round took beyond one step each.
    """
    rehearsed, federation = statistics.median(measured.round), study.federation
    if not strategy_named(federation.method).takes_steps:
        return rehearsed
    single = total = 0.0
    for own in map(len, run.sites.values()):
        batches = batches_of_pass(own, share_of_batch(study.train.batch, own, _cases(run)))
        step = _step_seconds(study, measured, own / batches)
        single += step
        total += step * (federation.local_steps or federation.local_epochs * batches)
    return total + max(0.0, rehearsed - single)


def _bytes(study: Study, run: ModelRun, schedule: Schedule, measured: Rehearsal) -> int:
    rounds = range(1, schedule.rounds + 1)
    plain = run.model != FEDERATED
    commits = schedule.rounds if plain else sum(map(schedule.commits_after, rounds))
    files = [
        measured.committed + (points - 1) * measured.point - _not_personal(study, run)
        for points in range(commits, max(0, commits - _KEPT), -1)
    ]
    states = len(run.sites) * min(_KEPT, schedule.rounds) * measured.site_state
    return sum(files) + (0 if plain else states)


def _not_personal(study: Study, run: ModelRun) -> int:
    """Bytes of the moments that the commits of a personal model lack."""
    if run.base is None:
        return 0
    weights = build_net(study.net, 0).state_dict()
    fixed = (t for name, t in weights.items() if not is_personal(name, study.personal.parts))
    return sum(_MOMENTS * t.nbytes + t.itemsize for t in fixed)


def makespan(seconds: Sequence[float], processes: int) -> float:
    """Seconds until all are done, `processes` at a time, in their order.

    >>> makespan([3, 1, 1, 1], 2), makespan([], 2)
    (3.0, 0.0)
    """
    free = [0.0] * processes
    for own in seconds:
        heapq.heapreplace(free, free[0] + own)
    return max(free)


def ablation_predictions(runs: Sequence[ModelRun], reference: str) -> int:
    """Predictions with sequences dropped (`sequence_ablation.dropped_sets`)."""
    return sum(
        _dropped(case, role == "external")
        for run in runs
        if run.model == reference
        for role, case in run.test_cases
    )


def _dropped(case: Case, external: bool) -> int:
    scanned = len(case.images)
    return (scanned if scanned > 1 else 0) if external else scanned - 1


def model_bytes(study: Study) -> int:
    """Bytes of the weights of the study's network."""
    return sum(t.nbytes for t in build_net(study.net, 0).state_dict().values())
