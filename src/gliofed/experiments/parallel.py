"""Models trained side by side, a process each: on a CPU, a small network cannot fill all cores.

What a process finds out is on the disk, as it is for a run that was stopped; the run then reads it
there. A process ends with the one that started it, however that ends.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import GliofedError
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.run_context import RunContext, RunOptions
from gliofed.experiments.train_and_test import predictions_file, test_model, train_model
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.processes import belong_to_parent
from gliofed.runtime.progress import NoProgress, Progress
from gliofed.study import Study
from gliofed.types import Case


@dataclass(frozen=True)
class ModelJob:
    """One model for one process. cases: each case with its key in the store."""

    study: Study
    cell: ModelRun
    cases: tuple[tuple[Case, str], ...]
    store: Path
    out: Path
    threads: int


def train_in_parallel(
    context: RunContext, cells: Sequence[ModelRun], options: RunOptions, progress: Progress
) -> None:
    """Train and test every cell, `processes` at a time, each on an equal share of the threads.

    Cells whose answers are on the disk already need no process.

    Raises the first error of gliofed that a process meets, and GliofedError where one is killed;
    the others are then stopped, and what they had committed stays.
    """
    study, prepared, out = context.study, context.prepared, context.out
    store, processes = options.store or out / "store", options.processes
    threads = max(1, torch.get_num_threads() // processes)
    waiting = deque(
        ModelJob(study, cell, _needed(cell, prepared), store, out, threads)
        for cell in cells
        if not predictions_file(context, cell).exists()
    )
    done = {str(job.cell): 0.0 for job in waiting}
    rounds_in_all = study.train.rounds * len(waiting)
    running: dict[Connection, tuple[SpawnProcess, ModelJob]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                pipe, process, job = _start(waiting.popleft())
                running[pipe] = (process, job)
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process, job = running[ready]
                told = _read(ready, process, job)
                if told is None:
                    del running[ready]
                    continue
                rounds, doing = told
                done[str(job.cell)] = rounds
                progress.update(sum(done.values()), rounds_in_all, f"{job.cell}: {doing}")
    finally:
        for process, _ in running.values():
            process.kill()
            process.join()


def _needed(cell: ModelRun, prepared: Mapping[str, PreparedCase]) -> tuple[tuple[Case, str], ...]:
    cases = [*(c for own in cell.sites.values() for c in own), *(c for _, c in cell.test_cases)]
    return tuple((c, prepared[str(c)].key) for c in cases)


def _start(job: ModelJob) -> tuple[Connection, SpawnProcess, ModelJob]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, there), daemon=True)
    process.start()
    there.close()
    return here, process, job


def _read(pipe: Connection, process: SpawnProcess, job: ModelJob) -> tuple[float, str] | None:
    """What a process has to say: rounds done and what it does, or None once it has finished."""
    try:
        told: tuple[float, str] | GliofedError = pipe.recv()
    except EOFError:
        process.join()
        if process.exitcode == 0:
            return None
        raise GliofedError(
            f"{job.cell}: its process ended with status {process.exitcode} before it was done; "
            "where memory ran out, start again with --processes 1, which goes on from there"
        ) from None
    if isinstance(told, GliofedError):
        raise told
    return told


class _ProgressByPipe(NoProgress):
    """Sends rounds done, and what is under way, to the process that started this one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def update(self, done: float, total: float, detail: str) -> None:
        """Send it."""
        self._pipe.send((done, detail))


def _work(job: ModelJob, pipe: Connection) -> None:
    """A process's whole life."""
    belong_to_parent()
    torch.set_num_threads(job.threads)
    keep_memory()
    machine = this_machine()
    try:
        shelf = PreparedStore(job.store)
        prepared = {str(case): shelf.open(key, case) for case, key in job.cases}
        context = RunContext(job.study, job.out, machine, prepared)
        trained = train_model(context, job.cell, _ProgressByPipe(pipe))
        pipe.send((float(trained.state.rounds), "tests"))
        test_model(context, trained)
    except GliofedError as error:
        pipe.send(error)
