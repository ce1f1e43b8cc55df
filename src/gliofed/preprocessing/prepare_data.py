"""The public function that prepares a hospital's scans for the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import DEFAULT, inspect
from gliofed.preprocessing.dataset import (
    DatasetCases,
    DatasetPreparation,
    account_json,
    preparation_request,
    prepare_dataset,
)
from gliofed.preprocessing.workers import CasePreparation, processes_at_once
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import load_study


@dataclass(frozen=True)
class PrepareOptions:
    """How a data set is prepared.

    study: a study file whose [grid], [prepare] and [quality] are used, so that its run finds the
    entries (default: the defaults of a study). format_id: a row of
    `gliofed.data.formats.registry.FORMATS`. site: name of the hospital (default: the folder's
    name). processes: cases side by side (default: one a core and 4 GiB of memory). figures: folder
    of a picture a case and a page over them (default: `figures/<site>` in the store). json: file
    for the result of every case.
    """

    study: Path | None = None
    format_id: str = DEFAULT
    site: str = ""
    processes: int | None = None
    figures: Path | None = None
    json: Path | None = None


def prepare(
    path: Path,
    store: Path,
    options: PrepareOptions = PrepareOptions(),
    progress: Progress = NO_PROGRESS,
    ended: Callable[[CasePreparation], None] = lambda case: None,
) -> DatasetPreparation:
    """Prepare one data set's cases into `store`, each in a process of its own.

    ended: called with each case as it ends. A case that fails does not stop the others.
    Raises GliofedError where the data set cannot be read or the store cannot be written.
    """
    site = options.site or path.resolve().name
    study = load_study(options.study) if options.study else None
    figures = options.figures or store / "figures" / site
    cases = inspect(path.resolve(), options.format_id, options.site).cases
    progress.stage(f"preparing {len(cases)} cases")
    processes = options.processes or processes_at_once()
    request = preparation_request(study, store, figures)
    result = prepare_dataset(DatasetCases(site, cases), request, processes, ended, progress)
    if options.json is not None:
        write_text(options.json, account_json(result))
    return result
