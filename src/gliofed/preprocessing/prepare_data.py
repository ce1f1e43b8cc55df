"""The public function that prepares a hospital's scans for the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from gliofed.data.formats.registry import DEFAULT, inspect
from gliofed.data.unused_scans import other_sessions, unused_scans, unused_text
from gliofed.dicom.signature import is_dicom
from gliofed.errors import DataError
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
from gliofed.types import Case

OWN_LAYOUTS: Final = ("bids", "nnunet")
"""Layouts of one's own files, where an unused scan may be an oversight; published data sets have
further files that their readers know."""
MOST_SNIFFED: Final = 200
"""Number of files that are opened to detect DICOM."""


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
    cases = _read_cases(path.resolve(), options)
    own = options.format_id in OWN_LAYOUTS
    unused, sessions = _unused(path.resolve(), cases) if own else ((), ())
    progress.stage(f"preparing {len(cases)} cases")
    processes = options.processes or processes_at_once()
    request = preparation_request(study, store, figures)
    dataset = DatasetCases(site, cases, unused, sessions)
    result = prepare_dataset(dataset, request, processes, ended, progress)
    if options.json is not None:
        write_text(options.json, account_json(result))
    return result


def _read_cases(path: Path, options: PrepareOptions) -> tuple[Case, ...]:
    """As `inspect`; the error of a folder of DICOM names the command that converts it."""
    try:
        return inspect(path, options.format_id, options.site).cases
    except DataError as error:
        if any(map(_is_dicom, islice(path.rglob("*"), MOST_SNIFFED))):
            raise DataError(
                f"{path}: holds DICOM; convert it first with `gliofed intake {path} --out HOSPITAL`"
            ) from error
        raise


def _is_dicom(path: Path) -> bool:
    try:
        return path.is_file() and is_dicom(path)
    except OSError:
        return False


def _unused(root: Path, cases: tuple[Case, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Lines on unused scans, and on further sessions of subjects."""
    used = [p for c in cases for p in (*c.images.values(), c.mask, c.brain) if p is not None]
    unused = tuple(unused_text(p, root) for p in unused_scans(root, used))
    return unused, tuple(other_sessions(root, used).values())
