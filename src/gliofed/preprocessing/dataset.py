"""A whole data set into a store, with a figure a case, a page over them, and the account of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.preprocessing.quality_index import ORDER, write_index
from gliofed.preprocessing.recipe import check_installed
from gliofed.preprocessing.workers import (
    CasePreparation,
    PreparationRequest,
    PreparationStatus,
    prepare_beside,
)
from gliofed.runtime.progress import Progress, ProgressCounter
from gliofed.study import GridConfig, PreparationConfig, QualityConfig, Study
from gliofed.types import Case
from gliofed.version import __version__

INDEX = "index.html"


@dataclass(frozen=True)
class DatasetPreparation:
    """What became of every case, in the order of the data set. page: over the figures."""

    accounts: tuple[CasePreparation, ...]
    page: Path

    def count(self, fate: PreparationStatus) -> int:
        """Cases with this fate."""
        return Counter(a.fate for a in self.accounts)[fate]

    @property
    def usable(self) -> int:
        """Cases that a study may use."""
        return self.count("prepared") + self.count("kept")


def preparation_request(study: Study | None, store: Path, figures: Path) -> PreparationRequest:
    """What a study asks for, so that its run finds the entries; the defaults without one."""
    if study is None:
        return PreparationRequest(
            GridConfig(), PreparationConfig(), QualityConfig(), store, figures
        )
    return PreparationRequest(study.grid, study.prepare, study.quality, store, figures)


def prepare_dataset(
    cases: Sequence[Case],
    name: str,
    asked: PreparationRequest,
    processes: int,
    ended: Callable[[CasePreparation], None],
    progress: Progress,
) -> DatasetPreparation:
    """As `prepare_beside`, with progress, and the page.

    Raises DataError, before the first case, where a step needs a package that is not installed.
    """
    check_installed(asked.steps)
    counter = ProgressCounter(progress, len(cases))

    def hear(account: CasePreparation) -> None:
        ended(account)
        counter.step("cases")

    progress.update(0, len(cases), "cases")
    accounts = prepare_beside(cases, asked, processes, hear)
    page = asked.figures / INDEX
    write_index(accounts, name, page)
    return DatasetPreparation(accounts, page)


def account_json(preparation: DatasetPreparation) -> str:
    """Every case's account as JSON; what does not exist is null."""
    whole = {
        "gliofed": __version__,
        "counts": {fate: preparation.count(fate) for fate in ORDER},
        "cases": [_plain(a) for a in preparation.accounts],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _plain(account: CasePreparation) -> dict[str, object]:
    measures = account.measures
    return {
        "case": account.case.id,
        "site": account.case.site,
        "fate": account.fate,
        "reasons": list(account.reasons),
        "seconds": round(account.seconds, 1),
        "brain_litres": measures and measures.brain_litres,
        "template_dice": measures and measures.template_dice,
        "alignment": measures and dict(measures.alignment),
        "key": account.key,
        "figure": account.figure and account.figure.name,
    }
