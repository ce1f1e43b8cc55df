"""A data set prepared case by case, each in a process that may die without taking others along.

Libraries that read and register scans are native code: a scan can crash them or exhaust the
memory. Every process has its own pipe, so the case that it died over is known.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, Literal

from gliofed.data.store import PreparedStore
from gliofed.errors import GliofedError, UnwritableError
from gliofed.preprocessing.cases import named, prepare_one
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.preprocessing.quality_figure import figure_name, update_figure
from gliofed.runtime.processes import belong_to_parent, cores
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Case, PreparationMeasures

PreparationStatus = Literal["prepared", "kept", "set aside", "failed"]

MEMORY_EACH: Final = 4 * 2**30
"""Bytes that a process is given room for when their number is not asked for."""
READY: Final = "ready"
_THREADS: Final = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class PreparationRequest:
    """What is asked for every case. figures: folder for a picture of each."""

    grid: GridConfig
    steps: PreparationConfig
    quality: QualityConfig
    store: Path
    figures: Path


@dataclass(frozen=True)
class CasePreparation:
    """What became of one case.

    fate: "prepared" now, or "kept" from an earlier start, is sound; "set aside" is in the store
    but does not reach what the study asks for, "failed" is not there. reasons: why of the last two,
    each with its cure. key, measures, figure: of the entry; None where there is none.
    """

    case: Case
    fate: PreparationStatus
    reasons: tuple[str, ...]
    seconds: float
    key: str | None = None
    measures: PreparationMeasures | None = None
    figure: Path | None = None


@dataclass(frozen=True)
class _WorkerAnswer:
    account: CasePreparation
    digests: Mapping[str, str]


@dataclass
class _Worker:
    process: SpawnProcess
    case: Case | None = None


def processes_at_once() -> int:
    """How many cases to prepare side by side: one a core, where each has `MEMORY_EACH`."""
    rooms = cores()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rooms = min(rooms, memory // MEMORY_EACH)
    return max(1, rooms)


def prepare_beside(
    cases: Sequence[Case],
    asked: PreparationRequest,
    processes: int,
    ended: Callable[[CasePreparation], None],
) -> tuple[CasePreparation, ...]:
    """Every case prepared, `processes` at a time; `ended` hears of each as it ends.

    A case that fails, or over which a process dies, does not stop the others; one that may have
    been killed for the memory that others used is tried again alone at the end. Raises
    UnwritableError where store or figures cannot be written, GliofedError where no process can be
    started. No process and nothing half-written is left, however this ends.
    """
    shelf = PreparedStore(asked.store)
    shelf.sweep()
    crew = _WorkerPool(asked, min(processes, len(cases)), shelf.remember)
    accounts: dict[str, CasePreparation] = {}

    def hear(account: CasePreparation) -> None:
        accounts[str(account.case)] = account
        ended(account)

    try:
        killed = crew.work(cases, hear, last=False)
        crew.shrink()
        for case in killed:
            crew.work([case], hear, last=True)
    finally:
        crew.end()
        shelf.sweep()
    shelf.save_digests()
    return tuple(accounts[str(c)] for c in cases)


class _WorkerPool:
    """Processes that take one case after the other; a dead one is replaced."""

    def __init__(
        self, asked: PreparationRequest, size: int, remember: Callable[[Mapping[str, str]], None]
    ) -> None:
        self._asked, self._size, self._remember = asked, size, remember
        self._threads = max(1, cores() // max(1, size))
        self._workers: dict[Connection, _Worker] = {}
        self._can_start = False

    def work(
        self, cases: Sequence[Case], ended: Callable[[CasePreparation], None], last: bool
    ) -> list[Case]:
        """Prepare every case; those whose process was killed are left over, unless it is `last`."""
        waiting, left = deque(cases), list[Case]()
        while waiting or self._busy():
            self._give(waiting)
            for ready in wait(self._busy()):
                assert isinstance(ready, Connection)
                worker = self._workers[ready]
                case = worker.case
                assert case is not None
                said = self._hear(ready)
                if isinstance(said, CasePreparation):
                    ended(said)
                elif said is not None and said == -signal.SIGKILL and not last:
                    left.append(case)
                elif said is not None:
                    ended(_dead(case, said))
        return left

    def shrink(self) -> None:
        """End all processes, and go on with one: it has the memory to itself."""
        self.end()
        self._size = 1

    def end(self) -> None:
        """Kill what is still at work."""
        for pipe, worker in self._workers.items():
            worker.process.kill()
            worker.process.join()
            pipe.close()
        self._workers.clear()

    def _busy(self) -> list[Connection]:
        return [pipe for pipe, worker in self._workers.items() if worker.case is not None]

    def _give(self, waiting: deque[Case]) -> None:
        """A case to every process that has none; a new process where there is room for one."""
        wanted = min(self._size, len(self._busy()) + len(waiting))
        while len(self._workers) < wanted:
            pipe, process = _start(self._asked, self._threads)
            self._workers[pipe] = _Worker(process)
        for pipe, worker in self._workers.items():
            if waiting and worker.case is None:
                worker.case = waiting.popleft()
                _send(pipe, worker.case)

    def _hear(self, pipe: Connection) -> CasePreparation | int | None:
        """A case's account, the status of a process that died over it, or None for neither."""
        worker = self._workers[pipe]
        try:
            said: str | _WorkerAnswer | GliofedError = pipe.recv()
        except (EOFError, ConnectionError):
            del self._workers[pipe]
            pipe.close()
            worker.process.join()
            status = worker.process.exitcode or 0
            if not self._can_start:
                raise _none_to_be_had(f"status {status}") from None
            return status
        if isinstance(said, GliofedError):
            raise said
        if isinstance(said, str):
            self._can_start = True
            return None
        worker.case = None
        self._remember(said.digests)
        return said.account


def _send(pipe: Connection, case: Case) -> None:
    try:
        pipe.send(case)
    except ConnectionError:  # it died idle: heard of at the next reading
        return


def _dead(case: Case, status: int) -> CasePreparation:
    if status == -signal.SIGKILL:
        why = (
            f"{case}: its process was killed twice, the second time with no other beside it; it "
            "needs more memory than there is: look at the size of its scans"
        )
    else:
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        why = (
            f"{case}: its process crashed ({how}); look for a damaged file with gliofed check, "
            "and leave the case out if there is none"
        )
    return CasePreparation(case, "failed", (why,), 0.0)


def _start(asked: PreparationRequest, threads: int) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=True)
    process = context.Process(target=_work, args=(asked, there), daemon=True)
    try:
        with _environment(threads):
            process.start()
    except OSError as error:
        raise _none_to_be_had(str(error)) from None
    there.close()
    return here, process


def _none_to_be_had(why: str) -> GliofedError:
    return GliofedError(
        f"no process for preparing can be started ({why}); a script must guard its own work with "
        "`if __name__ == '__main__'`, and there must be memory for it"
    )


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Threads for a process started within, but for what the user has set: read at import."""
    own = [name for name in _THREADS if name not in os.environ]
    os.environ |= dict.fromkeys(own, str(threads))
    try:
        yield
    finally:
        for name in own:
            del os.environ[name]


def _work(asked: PreparationRequest, pipe: Connection) -> None:
    """A process's whole life."""
    belong_to_parent()
    try:
        shelf = PreparedStore(asked.store)
        pipe.send(READY)
        while True:
            case: Case = pipe.recv()
            known = set(shelf.digests)
            account = prepare_told(case, asked, shelf)
            fresh = {k: v for k, v in shelf.digests.items() if k not in known}
            pipe.send(_WorkerAnswer(account, fresh))
    except GliofedError as error:
        pipe.send(error)
    except (EOFError, ConnectionError):  # no more to do
        return


def prepare_told(case: Case, asked: PreparationRequest, shelf: PreparedStore) -> CasePreparation:
    """One case and its figure. Raises UnwritableError; everything else is the case's account."""
    started = time.monotonic()
    try:
        prepared, kept = prepare_one(case, asked.grid, asked.steps, shelf)
        why = quality_faults(prepared.measures, asked.quality)
        figure = asked.figures / figure_name(case)
        update_figure(prepared, why, figure)
    except UnwritableError:
        raise
    except GliofedError as error:
        return CasePreparation(case, "failed", (named(case, error),), time.monotonic() - started)
    except MemoryError:
        why = (f"{case}: not enough memory; try with --processes 1",)
        return CasePreparation(case, "failed", why, time.monotonic() - started)
    except Exception as error:  # a fault in gliofed must not cost the night's other cases
        traceback.print_exc(file=sys.stderr)
        why = (f"{case}: {type(error).__name__}: {error}; a fault in gliofed, please report it",)
        return CasePreparation(case, "failed", why, time.monotonic() - started)
    fate: PreparationStatus = "set aside" if why else "kept" if kept else "prepared"
    seconds = time.monotonic() - started
    return CasePreparation(case, fate, why, seconds, prepared.key, prepared.measures, figure)
