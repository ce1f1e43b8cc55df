"""A pool of worker processes: typed jobs in, typed results out; a crash costs only its own job.

Libraries that read scans and train networks are native code, which bad input or a lack of memory
can crash. Each process has a pipe of its own, so the job that it crashed over is known.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType, TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from gliofed.errors import GliofedError
from gliofed.runtime.processes import belong_to_parent
from gliofed.runtime.progress import NO_PROGRESS, NoProgress, Progress

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

Work = Callable[[JobT, Progress], ResultT]
"""Work of a process on each job."""
Setup = Callable[[], Work[JobT, ResultT]]
"""Called once in each new process; must be picklable, as `functools.partial` of a function is."""

_THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class ProcessCrash:
    """The outcome of a job that ended its process. status: as `Process.exitcode`."""

    status: int

    @property
    def killed(self) -> bool:
        """Whether by SIGKILL, which the system sends when memory runs out."""
        return self.status == -signal.SIGKILL

    @property
    def reason(self) -> str:
        """What happened, as text after the name of a job."""
        if self.killed:
            return (
                "its process was killed twice, the second time while it ran alone; it needs more "
                "memory than there is"
            )
        ended = signal.Signals(-self.status).name if self.status < 0 else f"status {self.status}"
        return f"its process crashed ({ended})"


@dataclass(frozen=True)
class _Ready:
    """The first message of a process: it has started and is set up."""


@dataclass(frozen=True)
class _Update:
    done: float
    total: float
    detail: str


@dataclass(frozen=True)
class _Note:
    text: str


@dataclass(frozen=True)
class _Finished(Generic[ResultT]):
    result: ResultT


@dataclass
class _Worker(Generic[JobT]):
    """place: among the processes at a time, from 0."""

    process: SpawnProcess
    place: int
    job: JobT | None = None


class WorkerPool(Generic[JobT, ResultT]):
    """Processes that each take one job after the other; a dead one is replaced.

    A context manager: no process is left after the block, however that ends. A process also ends
    with the one that started it. Processes stay from one `run` to the next.
    """

    def __init__(
        self,
        setup: Setup[JobT, ResultT],
        processes: int,
        threads: int,
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """processes: at most this many at a time. threads: of native libraries in each process,
        unless the user's environment sets another number. environments: variables of each of the
        processes at a time; one in place of a dead one has its variables. None where empty."""
        self._setup, self._processes, self._threads = setup, processes, threads
        self._environments = environments or ({},) * max(1, processes)
        self._workers: dict[Connection, _Worker[JobT]] = {}
        self._can_start = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start a process, unless there is one: its imports are then done when the first job comes.

        Raises GliofedError where it cannot be started.
        """
        if not self._workers:
            self._add()

    def run(
        self,
        jobs: Sequence[JobT],
        progress_of: Callable[[JobT], Progress] = lambda job: NO_PROGRESS,
    ) -> Iterator[tuple[JobT, ResultT | ProcessCrash]]:
        """Each job with its outcome, as they end.

        A job whose process was killed is tried again after all others, alone: they may have used
        up the memory. progress_of: receives what the work reports of a job. Raises the first
        GliofedError that a job raises, and GliofedError where no process can be started.
        """
        killed: list[JobT] = []
        for job, outcome in self._run(jobs, self._processes, progress_of):
            if isinstance(outcome, ProcessCrash) and outcome.killed:
                killed.append(job)
            else:
                yield job, outcome
        if killed:
            self._end()
        for job in killed:
            yield from self._run([job], 1, progress_of)

    def _run(
        self, jobs: Sequence[JobT], processes: int, progress_of: Callable[[JobT], Progress]
    ) -> Iterator[tuple[JobT, ResultT | ProcessCrash]]:
        waiting = deque(jobs)
        while waiting or self._busy():
            self._assign(waiting, processes)
            for pipe in wait(self._busy()):
                assert isinstance(pipe, Connection)
                job = self._workers[pipe].job
                assert job is not None
                message = self._receive(pipe)
                if isinstance(message, _Finished):
                    yield job, message.result
                elif isinstance(message, ProcessCrash):
                    yield job, message
                elif isinstance(message, _Update):
                    progress_of(job).update(message.done, message.total, message.detail)
                elif isinstance(message, _Note):
                    progress_of(job).note(message.text)

    def _busy(self) -> list[Connection]:
        return [pipe for pipe, worker in self._workers.items() if worker.job is not None]

    def _assign(self, waiting: deque[JobT], processes: int) -> None:
        """A job to every process without one; a new process where there is room for one."""
        wanted = min(processes, len(self._busy()) + len(waiting))
        while len(self._workers) < wanted:
            self._add()
        for pipe, worker in self._workers.items():
            if waiting and worker.job is None:
                worker.job = waiting.popleft()
                _send(pipe, worker.job)

    def _add(self) -> None:
        taken = {worker.place for worker in self._workers.values()}
        place = min({*range(len(self._environments))} - taken)
        context = multiprocessing.get_context("spawn")
        own_end, its_end = context.Pipe(duplex=True)
        process = context.Process(target=_work, args=(self._setup, its_end), daemon=True)
        try:
            with _environment(self._threads, self._environments[place]), _no_main_module():
                process.start()
        except OSError as error:
            raise _cannot_start(str(error)) from None
        its_end.close()
        self._workers[own_end] = _Worker(process, place)

    def _receive(
        self, pipe: Connection
    ) -> _Ready | _Update | _Note | _Finished[ResultT] | ProcessCrash:
        worker = self._workers[pipe]
        try:
            message: _Ready | _Update | _Note | _Finished[ResultT] | GliofedError = pipe.recv()
        except (EOFError, ConnectionError):
            del self._workers[pipe]
            pipe.close()
            worker.process.join()
            status = worker.process.exitcode or 0
            if not self._can_start:
                raise _cannot_start(f"status {status}") from None
            return ProcessCrash(status)
        if isinstance(message, GliofedError):
            raise message
        if isinstance(message, _Ready):
            self._can_start = True
        if isinstance(message, _Finished):
            worker.job = None
        return message

    def _end(self) -> None:
        """Kill every process, idle or at work."""
        for pipe, worker in self._workers.items():
            worker.process.kill()
            worker.process.join()
            pipe.close()
        self._workers.clear()


def _send(pipe: Connection, job: object) -> None:
    try:
        pipe.send(job)
    except ConnectionError:  # it died idle; the next reading finds that
        return


def _cannot_start(reason: str) -> GliofedError:
    return GliofedError(
        f"no worker process can be started ({reason}); there must be memory for it, and the system "
        "must allow new processes"
    )


@contextmanager
def _environment(threads: int, own: Mapping[str, str]) -> Iterator[None]:
    """Variables for a process started within: its own, and thread counts that the user has not set.

    Native libraries read them when they are imported.
    """
    counts = {name: str(threads) for name in _THREAD_VARIABLES if name not in os.environ}
    changed = {**counts, **own}
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_main_module() -> Iterator[None]:
    """A process started within does not import the user's script again, as spawning would.

    Jobs and results are gliofed's own types, so it has no need to; and a script that calls
    gliofed then needs no `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _ProgressByPipe(NoProgress):
    """Sends progress to the process that started this one."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def stage(self, text: str) -> None:
        self._pipe.send(_Update(0, 1, text))

    def update(self, done: float, total: float, detail: str) -> None:
        self._pipe.send(_Update(done, total, detail))

    def note(self, text: str) -> None:
        self._pipe.send(_Note(text))


def _work(setup: Setup[Any, Any], pipe: Connection) -> None:
    """Main function of a worker process."""
    belong_to_parent()
    try:
        work = setup()
        pipe.send(_Ready())
        progress = _ProgressByPipe(pipe)
        while True:
            pipe.send(_Finished(work(pipe.recv(), progress)))
    except GliofedError as error:
        pipe.send(error)
    except (EOFError, ConnectionError):  # the pool has ended
        return
