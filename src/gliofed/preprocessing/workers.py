"""Preparation of cases in worker processes, so that a crash of a library costs one case only."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from gliofed.data.store import PreparedStore
from gliofed.errors import GliofedError, UnwritableError
from gliofed.preprocessing.cases import named, prepare_one, store_key
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.preprocessing.quality_figure import figure_name, update_figure
from gliofed.runtime.memory import physical_memory
from gliofed.runtime.processes import cores
from gliofed.runtime.progress import Progress
from gliofed.runtime.workers import ProcessCrash, WorkerPool
from gliofed.study import GridConfig, PreparationConfig, QualityConfig
from gliofed.types import Case, PreparationMeasures

PreparationStatus = Literal["prepared", "reused", "excluded", "failed"]

MEMORY_EACH: Final = 4 * 2**30
"""Memory planned for one process where no number of processes is given, in bytes."""


@dataclass(frozen=True)
class PreparationRequest:
    """The settings of a preparation.

    store: folder of the prepared cases. figures: folder for one picture a case; None draws none.
    """

    grid: GridConfig
    steps: PreparationConfig
    quality: QualityConfig
    store: Path
    figures: Path | None = None


@dataclass(frozen=True)
class CasePreparation:
    """The result of one case.

    status: "prepared" now; "reused" from an earlier start; "excluded": in the store, but below the
    quality limits of the study; "failed": not in the store. reasons: of the last two, each with its
    cure. key, measures, figure: of the entry; None without one.
    """

    case: Case
    status: PreparationStatus
    reasons: tuple[str, ...]
    seconds: float
    key: str | None = None
    measures: PreparationMeasures | None = None
    figure: Path | None = None


@dataclass(frozen=True)
class _Job:
    """A case, and the known digests of its files."""

    case: Case
    digests: Mapping[str, str]


@dataclass(frozen=True)
class _Result:
    """The result of a case, and the new digests of its files."""

    account: CasePreparation
    digests: Mapping[str, str]


def processes_at_once() -> int:
    """Number of cases to prepare in parallel: one a core, with `MEMORY_EACH` for each."""
    memory = physical_memory()
    return cores() if memory is None else max(1, min(cores(), memory // MEMORY_EACH))


class CasePreparer:
    """Prepares cases, each in a worker process; a context manager that leaves no process.

    Without figures to draw, cases that are in the store already need no process.
    """

    def __init__(self, request: PreparationRequest, processes: int) -> None:
        """Raises UnwritableError where the store cannot be made."""
        self._request = request
        self._store = PreparedStore(request.store)
        threads = max(1, cores() // max(1, processes))
        self._pool = WorkerPool(partial(_set_up, request), processes, threads)

    def __enter__(self) -> Self:
        self._store.sweep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.__exit__(kind, error, trace)
        self._store.sweep()
        if kind is None:
            self._store.save_digests()

    def start(self) -> None:
        """Start a process before the first case. Raises GliofedError where that fails."""
        self._pool.start()

    def prepare(self, cases: Sequence[Case]) -> Iterator[CasePreparation]:
        """The account of every case, as they end.

        A case that fails, or over which a process dies, does not stop the others. Raises
        UnwritableError where store or figures cannot be written, GliofedError where no process
        can be started.
        """
        jobs: list[_Job] = []
        for case in cases:
            job, account = self._look_up(case)
            if account is None:
                jobs.append(job)
            else:
                yield account
        for job, outcome in self._pool.run(jobs):
            if isinstance(outcome, ProcessCrash):
                yield _crashed(job.case, outcome)
            else:
                self._store.remember(outcome.digests)
                yield outcome.account

    def _look_up(self, case: Case) -> tuple[_Job, CasePreparation | None]:
        """The job, and the account where it need not be done."""
        if self._request.figures is not None:
            return _Job(case, {}), None
        request, known = self._request, set(self._store.digests)
        try:
            key = store_key(case, request.grid, request.steps, self._store)
        except GliofedError as error:
            return _Job(case, {}), _failed(case, named(case, error))
        fresh = {k: v for k, v in self._store.digests.items() if k not in known}
        kept = self._store.has(key)
        return _Job(case, fresh), prepare_case_here(case, request, self._store) if kept else None


def prepare_cases(
    cases: Sequence[Case],
    request: PreparationRequest,
    processes: int,
    ended: Callable[[CasePreparation], None],
) -> tuple[CasePreparation, ...]:
    """Every case prepared, `processes` at a time, in the order of `cases`.

    ended: called with each account as the case ends. Raises as `CasePreparer.prepare` does. No
    process and nothing half-written is left, however this ends.
    """
    accounts: dict[str, CasePreparation] = {}
    with CasePreparer(request, min(processes, len(cases))) as preparer:
        for account in preparer.prepare(cases):
            accounts[str(account.case)] = account
            ended(account)
    return tuple(accounts[str(c)] for c in cases)


def _failed(case: Case, reason: str, seconds: float = 0.0) -> CasePreparation:
    return CasePreparation(case, "failed", (reason,), seconds)


def _crashed(case: Case, crash: ProcessCrash) -> CasePreparation:
    cure = (
        "look at the size of its scans"
        if crash.killed
        else "look for a damaged file with gliofed check, and leave the case out if there is none"
    )
    return _failed(case, f"{case}: {crash.reason}; {cure}")


def _set_up(request: PreparationRequest) -> Callable[[_Job, Progress], _Result]:
    """What a worker process does with each case."""
    store = PreparedStore(request.store)

    def prepare(job: _Job, progress: Progress) -> _Result:
        store.remember(job.digests)
        known = set(store.digests)
        account = prepare_case_here(job.case, request, store)
        fresh = {k: v for k, v in store.digests.items() if k not in known}
        return _Result(account, fresh)

    return prepare


def prepare_case_here(
    case: Case, request: PreparationRequest, store: PreparedStore
) -> CasePreparation:
    """Prepare one case and draw its figure, in this process.

    Raises UnwritableError. Every other fault becomes a reason of the result.
    """
    started = time.monotonic()
    try:
        prepared, kept = prepare_one(case, request.grid, request.steps, store)
        why = quality_faults(prepared.measures, request.quality, prepared.placements)
        figure = None
        if request.figures is not None:
            figure = request.figures / figure_name(case)
            update_figure(prepared, why, figure)
    except UnwritableError:
        raise
    except GliofedError as error:
        return _failed(case, named(case, error), time.monotonic() - started)
    except MemoryError:
        reason = f"{case}: not enough memory; try with --processes 1"
        return _failed(case, reason, time.monotonic() - started)
    except Exception as error:  # a fault in gliofed must not cost the night's other cases
        traceback.print_exc(file=sys.stderr)
        reason = f"{case}: {type(error).__name__}: {error}; a fault in gliofed, please report it"
        return _failed(case, reason, time.monotonic() - started)
    status: PreparationStatus = "excluded" if why else "reused" if kept else "prepared"
    seconds = time.monotonic() - started
    return CasePreparation(case, status, why, seconds, prepared.key, prepared.measures, figure)
