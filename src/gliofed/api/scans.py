"""A hospital's scans: from DICOM to a hospital, checked, prepared; outlines out, corrections in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.data.audit import DatasetReading
from gliofed.data.formats.registry import DEFAULT, format_of
from gliofed.inference.corrections import CorrectedLabel, Correction
from gliofed.inference.corrections import correct as take_back
from gliofed.inference.mask_export import (
    ExportedMask,
    MaskExport,
    SeriesLocation,
    export_image,
    export_masks,
    open_prepared_case,
    read_mask_nifti,
)
from gliofed.preprocessing.dataset import (
    DatasetCases,
    DatasetPreparation,
    account_json,
    preparation_request,
    prepare_dataset,
)
from gliofed.preprocessing.workers import CasePreparation
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import load_study
from gliofed.types import Sequence
from gliofed.validation.check import CheckResult, check_path
from gliofed.validation.html_sheet import write_json, write_sheet

if TYPE_CHECKING:  # the libraries of DICOM are an extra
    from gliofed.dicom.storescp import ListenAddress
    from gliofed.ingest.intake import IngestRequest, IngestResult


def intake(request: IngestRequest, progress: Progress = NO_PROGRESS) -> IngestResult:
    """Take DICOM into a pseudonymised BIDS hospital; see `gliofed.ingest.intake.IngestRequest`.

    Raises DataError where the source or one of the site's own files cannot be used; faults of
    single series are in the account. Needs the extra `gliofed[hospital]`.
    """
    from gliofed.ingest.intake import intake as take_in

    return take_in(request, progress)


def receive(folder: Path, port: ListenAddress, progress: Progress = NO_PROGRESS) -> int:
    """Let a PACS send MR instances into `folder` until idle or interrupted; how many came."""
    from gliofed.dicom.storescp import receive as listen

    progress.stage("receiving")
    return listen(folder, port, progress)


def check(
    path: Path,
    json: Path | None = None,
    sheet: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> CheckResult:
    """Check a hospital, a folder of hospitals or of case folders, an image or a table.

    json, sheet: files to write the findings to, as JSON and as an HTML page with thumbnails.
    Every fault of the data is a finding of the result; raises DataError where `path` does not
    exist or no reading process can be started.
    """
    progress.stage(f"checking {path}")
    result = check_path(path, sheet is not None, progress)
    if json is not None:
        write_json(result, json)
    if sheet is not None:
        write_sheet(result, sheet)
    return result


def inspect(path: Path, format_id: str = DEFAULT, site: str = "") -> DatasetReading:
    """Read one data set as a study would, opening no image: its cases and the account of them.

    format_id: a row of `gliofed.data.formats.registry.FORMATS`. site: what to call the hospital
    (default: the folder's name). Raises StudyError for an unknown format, else DataError.
    """
    return format_of(format_id).read(path, site or path.resolve().name)


def prepare(
    path: Path,
    store: Path,
    study: Path | None = None,
    format_id: str = DEFAULT,
    site: str = "",
    processes: int = 1,
    figures: Path | None = None,
    json: Path | None = None,
    progress: Progress = NO_PROGRESS,
    ended: Callable[[CasePreparation], None] = lambda account: None,
) -> DatasetPreparation:
    """Prepare one data set's cases into `store`, each in a process of its own.

    study: its [grid], [prepare] and [quality] are used, so that its run finds the entries.
    figures: folder of a picture a case and a page (default: `store`/figures/<site>). json: file
    for the account. ended: hears of each case as it ends. A case that fails does not stop the
    others; a script must guard its own work with `if __name__ == "__main__"`. Raises GliofedError
    where the set cannot be read or the store not be written.
    """
    name = site or path.resolve().name
    request = preparation_request(
        load_study(study) if study else None, store, figures or store / "figures" / name
    )
    dataset = DatasetCases(name, inspect(path.resolve(), format_id, site).cases)
    progress.stage(f"preparing {len(dataset.cases)} cases")
    found = prepare_dataset(dataset, request, processes, ended, progress)
    if json is not None:
        write_text(json, account_json(found))
    return found


def export(
    mask: Path,
    case: Path,
    out: Path,
    series: Mapping[Sequence, SeriesLocation] | None = None,
    model: str = "",
    person: str = "",
    overwrite: bool = False,
) -> tuple[ExportedMask, ...]:
    """Bring a mask or probability map in the network's space back to every scan of its case.

    case: the case's folder in the prepared store. series: DICOM series by sequence, to which a
    DICOM-SEG is written besides. model, person: who made the mask.
    """
    prepared = open_prepared_case(case)
    segmentation = read_mask_nifti(mask, prepared)
    options = MaskExport(out, series or {}, model, person, overwrite)
    return export_masks(segmentation, prepared, options)


def image(case: Path, sequence: Sequence, out: Path, overwrite: bool = False) -> Path:
    """Write one sequence of a prepared case in the network's space, to draw a mask on."""
    return export_image(open_prepared_case(case), sequence, out, overwrite)


def correct(correction: Correction, hospital: Path, subject: str) -> CorrectedLabel:
    """Take a person's corrected mask back as the label of one subject of a BIDS hospital.

    The label that was in force until now is kept beside it, under a name that no study reads.
    """
    return take_back(correction, hospital, subject)
