"""Cases predicted by a model, and their pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.errors import DataError
from gliofed.runtime.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from gliofed.dicom.dicomweb import DicomWebServer
    from gliofed.inference.batch import CaseStatus


def predict(
    model: Path,
    scans: str,
    out: Path,
    store: Path | None = None,
    overwrite: bool = False,
    explain: bool = False,
    pacs: DicomWebServer | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[CaseStatus, ...]:
    """Answer every case at or below `scans`, each in a folder of its own below `out`.

    model: a model's folder. scans: BIDS hospitals, case folders or a folder of images; a folder or
    archive of DICOM, or a DICOMweb address with what `pacs` asks of it, which are taken in below
    `out` first. Sequences may be missing. store: of prepared cases (default: `out`/store). explain:
    also compute occlusion maps of each marker, some 150 more passes of the network. A case answered
    by this model before is skipped; one that cannot be used is refused with its faults and does not
    stop the others. Raises GliofedError and its kinds as `gliofed.inference.batch.predict_all` and
    `gliofed.inference.scan_source.load_scans` say.
    """
    from gliofed.inference.batch import BatchOptions, predict_all
    from gliofed.inference.scan_source import load_scans
    from gliofed.models.folder import read_model
    from gliofed.runtime.device import this_machine

    trained = read_model(model)
    loaded = load_scans(scans, out, pacs, progress)
    for note in loaded.notes:
        progress.note(note)
    progress.stage(f"predicting with model {trained.id[:12]}")
    options = BatchOptions(out, store or out / "store", overwrite, loaded.series, explain)
    return predict_all(loaded.folder, trained, options, this_machine(), progress)


def report(
    answers: Path, store: Path | None = None, progress: Progress = NO_PROGRESS
) -> tuple[Path, ...]:
    """Write the page of each case that `predict` answered, `report.html` in its folder.

    answers: the folder of all, or of one case. store: of the prepared cases, where it is not where
    it was. Raises DataError: no answer there, or a damaged one; StoreError: the prepared scans of
    a case are gone. Pages written by then stay.
    """
    from gliofed.inference.answer_files import PAGE, answer_folders, read_answer
    from gliofed.reporting.case.page import write_case_page

    folders = answer_folders(answers)
    if not folders:
        raise DataError(
            f"{answers}: holds no answers; give the folder that `gliofed predict` wrote to"
        )
    progress.stage("writing pages")
    for done, folder in enumerate(folders):
        progress.update(done, len(folders), folder.name)
        write_case_page(read_answer(folder, store), folder / PAGE)
    return tuple(f / PAGE for f in folders)
