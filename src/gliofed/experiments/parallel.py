"""Trains several models at the same time, each in a process: one on each GPU, and else, since one
model cannot use all cores of a CPU, one on each core.

Each process writes its results to the disk; the run then reads them there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import GliofedError
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.run_context import RunContext, RunOptions
from gliofed.experiments.train_and_test import predictions_file, test_model, train_model
from gliofed.runtime.device import (
    keep_memory,
    keep_to_share,
    models_a_gpu,
    process_environments,
    this_machine,
)
from gliofed.runtime.memory import is_out_of_memory
from gliofed.runtime.progress import NoProgress, Progress
from gliofed.runtime.workers import WorkerPool
from gliofed.study import Study
from gliofed.types import Case


@dataclass(frozen=True)
class ModelJob:
    """One model for one process. cases: each case with its key in the store."""

    study: Study
    run: ModelRun
    cases: tuple[tuple[Case, str], ...]
    store: Path
    out: Path


def train_in_parallel(
    context: RunContext, runs: Sequence[ModelRun], options: RunOptions, progress: Progress
) -> None:
    """Train and test every model, `processes` at a time, each on an equal share of the threads.

    Models whose predictions are on the disk already need no process.

    A model whose process is killed is trained again alone, from its last committed round. Raises
    the first error of gliofed that a process meets, with the model's name, and GliofedError where
    one crashes or has too little memory; the others are then stopped, and their committed rounds
    stay.
    """
    first = [run for run in runs if run.base is None]
    rest = [run for run in runs if run.base is not None]  # begin with models of the first
    for stage in filter(None, (first, rest)):
        _train_at_once(context, stage, options, progress)


def _train_at_once(
    context: RunContext, runs: Sequence[ModelRun], options: RunOptions, progress: Progress
) -> None:
    study, prepared, out = context.study, context.prepared, context.out
    store, processes = options.store or out / "store", options.processes
    threads = max(1, torch.get_num_threads() // processes)
    jobs = [
        ModelJob(study, run, _case_keys(run, prepared), store, out)
        for run in runs
        if not predictions_file(context, run).exists()
    ]
    progress.stage(f"training {len(runs)} models, {processes} at a time")
    all_progress = _ProgressOfModels(
        progress, sum(job.run.effective_study(study).train.epochs for job in jobs)
    )
    set_up = partial(_set_up, threads, models_a_gpu(processes))
    with WorkerPool(set_up, processes, threads, process_environments(processes)) as pool:
        for job, outcome in pool.run(jobs, all_progress.of):
            if outcome is not None:
                raise GliofedError(
                    f"{job.run}: {outcome.reason}; start again with --processes 1, which goes on "
                    "from the last committed round"
                )


class _ProgressOfModels:
    """Passes of all models in one count."""

    def __init__(self, progress: Progress, passes: int) -> None:
        self._progress, self._passes = progress, passes
        self._done: dict[str, float] = {}

    def of(self, job: ModelJob) -> Progress:
        """Of one model, whose updates count its own passes."""
        return _ProgressOfModel(self, str(job.run))

    def update(self, model: str, done: float, detail: str) -> None:
        """Replace the model's passes, and report the sum."""
        self._done[model] = done
        self._progress.update(sum(self._done.values()), self._passes, f"{model}: {detail}")


class _ProgressOfModel(NoProgress):
    def __init__(self, models: _ProgressOfModels, name: str) -> None:
        self._models, self._name = models, name

    def update(self, done: float, total: float, detail: str) -> None:
        self._models.update(self._name, done, detail)


def _case_keys(run: ModelRun, prepared: Mapping[str, PreparedCase]) -> tuple[tuple[Case, str], ...]:
    training = [run, *([run.base] if run.base is not None else [])]
    cases = [c for each in training for own in each.sites.values() for c in own]
    cases += [c for _, c in run.test_cases]
    return tuple((c, prepared[str(c)].key) for c in cases)


def _set_up(threads: int, sharing: int) -> Callable[[ModelJob, Progress], None]:
    """The function that a worker process calls for each model. threads: of torch. sharing: models
    on one GPU."""
    torch.set_num_threads(threads)
    keep_memory()
    keep_to_share(sharing)
    machine = this_machine()

    def train_and_test(job: ModelJob, progress: Progress) -> None:
        with named_errors(job.run):
            store = PreparedStore(job.store)
            prepared = {str(case): store.open(key, case) for case, key in job.cases}
            context = RunContext(job.study, job.out, machine, prepared)
            trained = train_model(context, job.run, progress)
            epochs = job.run.effective_study(job.study).train.epochs
            progress.update(epochs, epochs, "tests")
            test_model(context, trained)

    return train_and_test


@contextmanager
def named_errors(run: ModelRun) -> Iterator[None]:
    """Put the model's name before an error; too little memory becomes an error with its cure."""
    try:
        yield
    except GliofedError as error:
        raise type(error)(f"{run}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise GliofedError(
            f"{run}: not enough memory ({_first_line(error)}); start again with fewer "
            "--processes, which goes on from the last committed round, or set a smaller "
            "train.batch or grid.patch"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
