"""The public functions of prediction: predict cases, write their pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.errors import DataError
from gliofed.inference.answer_files import PAGE, answer_folders, read_answer
from gliofed.inference.batch import BatchOptions, CaseStatus, predict_all
from gliofed.inference.people import parse_person
from gliofed.inference.scan_source import load_scans
from gliofed.models.example import example_model
from gliofed.models.folder import read_model
from gliofed.reporting.case.page import write_case_page
from gliofed.runtime.device import this_machine
from gliofed.runtime.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:  # an extra
    from gliofed.dicom.dicomweb import DicomWebServer


@dataclass(frozen=True)
class PredictOptions:
    """How cases are predicted.

    model: a model folder (default: the example model of the repository). store: folder of prepared
    cases (default: `store` in the output folder). overwrite: replace existing masks. explain: also
    compute occlusion maps of each marker, some 150 more passes of the network. server: settings of
    a DICOMweb connection. accept_quality: predict cases that fail the quality limits of the
    preparation, which are refused otherwise. age, sex: in years, and F or M, of the only case, for
    a model that uses them; by default those of participants.tsv in a BIDS hospital.
    """

    model: Path | None = None
    store: Path | None = None
    overwrite: bool = False
    explain: bool = False
    server: DicomWebServer | None = None
    accept_quality: bool = False
    age: str = ""
    sex: str = ""


def predict(
    scans: str,
    out: Path,
    options: PredictOptions = PredictOptions(),
    progress: Progress = NO_PROGRESS,
) -> tuple[CaseStatus, ...]:
    """Predict every case at or below `scans`, each into a folder of its own below `out`.

    scans: BIDS hospitals, case folders or a folder of images; or a folder
    or archive of DICOM, or a DICOMweb address, which are converted below `out` first. Sequences may
    be missing. A case predicted by this model before is skipped. A case that cannot be used is
    refused with its faults and does not stop the others. Raises GliofedError and its kinds as
    `gliofed.inference.batch.predict_all` and `gliofed.inference.scan_source.load_scans` do.
    """
    _check_apart(scans, out)
    person = parse_person(options.age, options.sex)
    trained = read_model(options.model or example_model())
    loaded = load_scans(scans, out, options.server, progress)
    for note in loaded.notes:
        progress.note(note)
    if loaded.notes and loaded.private is not None:
        progress.note(f"tables for decisions: {loaded.private}")
    progress.stage(f"predicting with model {trained.id[:12]}")
    if trained.recipe.caution:
        progress.note(trained.recipe.caution)
    store = options.store or out / "store"
    batch = BatchOptions(
        out,
        store,
        options.overwrite,
        loaded.series,
        options.explain,
        options.accept_quality,
        loaded.notes,
        person,
    )
    return predict_all(loaded.folder, trained, batch, this_machine(), progress)


def _check_apart(scans: str, out: Path) -> None:
    """Raises DataError where results would lie among the scans, and be read as scans next time."""
    source, target = Path(scans).resolve(), out.resolve()
    if source.is_dir() and (target == source or source in target.parents):
        raise DataError(
            f"{out}: lies in the folder of the scans, {scans}; give --out a folder elsewhere"
        )


def report(
    predictions: Path, store: Path | None = None, progress: Progress = NO_PROGRESS
) -> tuple[Path, ...]:
    """Write the page of each predicted case, `report.html` in its folder.

    predictions: the output folder of `predict`, or that of one case. store: folder of the prepared
    cases, if it was moved. Raises DataError where there is no predicted case or a damaged one,
    StoreError where the prepared scans of a case are gone. Pages written by then stay.
    """
    folders = answer_folders(predictions)
    if not folders:
        raise DataError(
            f"{predictions}: no predicted case; give the folder that `gliofed predict` wrote to"
        )
    progress.stage("writing pages")
    for done, folder in enumerate(folders):
        progress.update(done, len(folders), folder.name)
        write_case_page(read_answer(folder, store), folder / PAGE)
    return tuple(folder / PAGE for folder in folders)
