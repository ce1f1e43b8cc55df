"""Prepares a data set into a store, with a figure for each case, an index page and a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError
from gliofed.preprocessing.quality_index import ORDER, write_index
from gliofed.preprocessing.recipe import check_installed
from gliofed.preprocessing.workers import (
    CasePreparation,
    PreparationRequest,
    PreparationStatus,
    prepare_cases,
    processes_at_once,
)
from gliofed.runtime.progress import Progress, ProgressCounter
from gliofed.study import GridConfig, PreparationConfig, QualityConfig, Study
from gliofed.types import Case
from gliofed.version import __version__

INDEX = "index.html"
NAMED: Final = 10
"""Cases that fail are named in one error up to this number."""


@dataclass(frozen=True)
class DatasetCases:
    """The cases of one data set. name: title of the index page. unused: a line for each file that
    looks like a scan and is no case's. sessions: a line for each subject with further sessions,
    which are left out by rule."""

    name: str
    cases: tuple[Case, ...]
    unused: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetPreparation:
    """The result of every case, in the order of the data set. page: index of the figures. unused,
    sessions: as in `DatasetCases`."""

    accounts: tuple[CasePreparation, ...]
    page: Path
    unused: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()

    def count(self, status: PreparationStatus) -> int:
        """Number of cases with this status."""
        return Counter(a.status for a in self.accounts)[status]

    @property
    def usable(self) -> int:
        """Number of cases that a study may use."""
        return self.count("prepared") + self.count("reused")


def preparation_request(
    study: Study | None, store: Path, figures: Path | None = None
) -> PreparationRequest:
    """The settings of a study, so that its run finds the same entries; defaults without a study."""
    if study is None:
        return PreparationRequest(
            GridConfig(), PreparationConfig(), QualityConfig(), store, figures
        )
    return PreparationRequest(study.grid, study.prepare, study.quality, store, figures)


def prepare_dataset(
    dataset: DatasetCases,
    request: PreparationRequest,
    processes: int,
    ended: Callable[[CasePreparation], None],
    progress: Progress,
) -> DatasetPreparation:
    """Prepare every case, `processes` at a time, and write figures and their index page.

    ended: called with the result of each case. Raises DataError, before the first case, where a
    step needs a package that is not installed; ValueError where the request has no folder for
    figures.
    """
    figures = request.figures
    if figures is None:
        raise ValueError("a data set is prepared with figures; name their folder")
    check_installed(request.steps)
    counter = ProgressCounter(progress, len(dataset.cases))

    def report(account: CasePreparation) -> None:
        ended(account)
        counter.step("cases")

    progress.update(0, len(dataset.cases), "cases")
    accounts = prepare_cases(dataset.cases, request, processes, report)
    page = figures / INDEX
    write_index(accounts, dataset.name, page, (*dataset.unused, *dataset.sessions))
    return DatasetPreparation(accounts, page, dataset.unused, dataset.sessions)


def prepare_every_case(
    cases: Sequence[Case], request: PreparationRequest, progress: Progress
) -> tuple[PreparedCase, ...]:
    """Prepare every case and return them in order; cases in the store are reused.

    `processes_at_once` cases are prepared in parallel. A case that fails does not stop the others:
    finished cases stay in the store for the next start. Raises DataError, after the
    last case, naming those that failed; else as `prepare_cases`.
    """
    check_installed(request.steps)
    counter = ProgressCounter(progress, len(cases))
    accounts = prepare_cases(
        cases, request, processes_at_once(), lambda account: counter.step("cases")
    )
    failed = [a.reasons[0] for a in accounts if a.key is None]
    if failed:
        more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise DataError(
            f"{len(failed)} of {len(cases)} cases cannot be prepared, the others are in the store: "
            + "; ".join(failed[:NAMED])
            + more
        )
    store = PreparedStore(request.store)
    return tuple(store.open(a.key, a.case) for a in accounts if a.key is not None)


def account_json(preparation: DatasetPreparation) -> str:
    """The result of every case as JSON; missing values are null."""
    report = {
        "gliofed": __version__,
        "counts": {status: preparation.count(status) for status in ORDER},
        "cases": [_case_json(a) for a in preparation.accounts],
        "unused": list(preparation.unused),
        "sessions": list(preparation.sessions),
    }
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def _case_json(account: CasePreparation) -> dict[str, object]:
    measures = account.measures
    return {
        "case": account.case.id,
        "site": account.case.site,
        "status": account.status,
        "reasons": list(account.reasons),
        "seconds": round(account.seconds, 1),
        "brain_litres": measures and measures.brain_litres,
        "template_dice": measures and measures.template_dice,
        "alignment": measures and dict(measures.alignment),
        "key": account.key,
        "figure": account.figure and account.figure.name,
    }
