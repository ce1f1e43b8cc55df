"""Predicts many cases, one after the other; a second start skips complete ones.

<out>/<case>/answer.json        the prediction, with maps.safetensors; written last
<out>/<case>/..._mask.nii.gz    the mask on the grid of each of its scans, and its sidecar
<out>/<case>/..._mask.dcm       from DICOM: the segmentation of each series
<out>/<case>/..._report.dcm     from DICOM: the prediction as a Structured Report of one series
<out>/predictions.csv           every case in one table, which `gliofed score` reads
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from gliofed.data.store import RECIPE, PreparedCase, PreparedStore
from gliofed.errors import DataError, GliofedError, ModelError, UnwritableError
from gliofed.inference.answer import CaseAnswer
from gliofed.inference.answer_files import (
    ANSWER,
    answer_folders,
    predictions_table,
    read_provenance,
    write_answer,
)
from gliofed.inference.case import answer_case
from gliofed.inference.case_content import content_of
from gliofed.inference.dicom_report import report_bytes
from gliofed.inference.forward import DeviceNetwork
from gliofed.inference.mask_export import MaskExport, SeriesLocation, export_masks
from gliofed.inference.unused_files import find_unused
from gliofed.models.folder import TrainedModel
from gliofed.preprocessing.recipe import check_installed
from gliofed.preprocessing.workers import CasePreparer, PreparationRequest
from gliofed.reporting.case.content import CaseContent
from gliofed.runtime.device import Device, keep_memory
from gliofed.runtime.files import alone_in, write_bytes, write_text
from gliofed.runtime.progress import Progress, ProgressOfPart
from gliofed.types import Case, Labels, Sequence
from gliofed.validation.findings import Finding
from gliofed.validation.locate import LocatedCase, LocatedSite, display_path, locate
from gliofed.validation.reader import SafeReader
from gliofed.validation.reader_messages import ReadRequest

TABLE: Final = "predictions.csv"
UNFINISHED: Final = ".unfinished"
"""Marks a case's folder while it is written: its other files are then not a user's correction."""
Status = Literal["predicted", "skipped", "refused"]


@dataclass(frozen=True)
class CaseStatus:
    """The outcome of one case. status: skipped if this model predicted it before. reasons: of a
    refused case, each with its cure; of another, what the checks found. unused: files that look
    like a scan of this case and are not used, a line each, which `reasons` has too."""

    case: str
    status: Status
    reasons: tuple[str, ...]
    seconds: float
    folder: Path
    unused: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it has a prediction and none of its scans was left out."""
        return self.status != "refused" and not self.unused


@dataclass(frozen=True)
class BatchOptions:
    """out: output folder. store: of prepared cases. overwrite: replace older files, which may have
    been corrected. series: DICOM series by subject; results are then written as DICOM too. explain:
    also compute occlusion maps. accept_quality: predict cases that fail the preparation's quality
    limits."""

    out: Path
    store: Path
    overwrite: bool = False
    series: Mapping[str, Mapping[Sequence, SeriesLocation]] = field(default_factory=dict)
    explain: bool = False
    accept_quality: bool = False


def predict_all(
    path: Path,
    model: TrainedModel,
    options: BatchOptions,
    machine: Device,
    progress: Progress,
) -> tuple[CaseStatus, ...]:
    """Predict every case at or below `path`, found as by `check`: a BIDS hospital or several, case
    folders in the style of BraTS, or one folder of images.

    A case that cannot be used is refused with its faults and does not stop the others. Raises
    DataError if there is no case or a package is missing, ModelError for a model prepared by other
    steps, CheckpointError where another process works in `out`, UnwritableError, OSError.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the scans to predict")
    keep_memory()
    _check_steps(model)
    check_installed(model.recipe.prepare)
    sites, findings = locate(path.resolve())
    cases = [(site, located) for site in sites for located in site.cases if located.images]
    unused = find_unused(path.resolve(), [located for site in sites for located in site.cases])
    if not cases:
        listed = "".join(f"\n  {line}" for _, lines in unused.others for line in lines)
        raise DataError(
            f"{path}: has no scan; give a BIDS hospital, nnU-Net's imagesTs with its dataset.json, "
            f"case folders, or a folder of images named by T1, T1CE, T2 or FLAIR{listed}"
        )
    subjects = Counter(located.subject for _, located in cases)
    batch = _BatchPrediction(path.resolve(), model, options, machine, findings)
    statuses = [
        CaseStatus(folder, "refused", lines, 0.0, options.out, lines)
        for folder, lines in unused.others
    ]
    recipe = model.recipe
    request = PreparationRequest(recipe.grid, recipe.prepare, recipe.quality, options.store)
    with (
        alone_in(options.out),
        SafeReader() as reader,
        CasePreparer(request, processes=1) as preparer,
    ):
        helpers = _HelperProcesses(reader, preparer)
        for done, (site, located) in enumerate(cases):
            part = ProgressOfPart(progress, done, len(cases), located.name)
            unique = subjects[located.subject] == 1
            name = located.subject if unique else f"{site.name}_{located.subject}"
            status = batch.predict(site, located, name, helpers, part)
            left = unused.by_case.get(located.name, ())
            statuses.append(replace(status, reasons=(*status.reasons, *left), unused=left))
        write_text(options.out / TABLE, predictions_table(answer_folders(options.out)))
    return tuple(statuses)


@dataclass(frozen=True)
class _HelperProcesses:
    """Scans are opened in another process, since a damaged one may crash it."""

    reader: SafeReader
    preparer: CasePreparer


class _BatchPrediction:
    """The inputs shared by all cases."""

    def __init__(
        self,
        root: Path,
        model: TrainedModel,
        options: BatchOptions,
        machine: Device,
        findings: Iterable[Finding],
    ) -> None:
        self._root, self._model, self._options = root, model, options
        self._network = DeviceNetwork(model.net().to(machine.device), machine)
        self._store = PreparedStore(options.store)
        self._errors = [f for f in findings if f.severity == "error"]

    def predict(
        self,
        site: LocatedSite,
        located: LocatedCase,
        name: str,
        helpers: _HelperProcesses,
        progress: Progress,
    ) -> CaseStatus:
        """One case, from its scans to the files of its prediction. name: of its folder."""
        started = time.monotonic()
        progress.stage("checking")
        folder = self._options.out / name
        faults = [_text(f) for f in self._errors if f.case == located.name]
        faults += self._faults(located, helpers.reader)
        if faults:
            return CaseStatus(located.name, "refused", tuple(faults), _since(started), folder)
        case = Case(name, site.name, located.subject, located.images, None, Labels())
        try:
            progress.stage("preparing")
            (account,) = helpers.preparer.prepare([case])
            if account.key is None:
                return CaseStatus(located.name, "refused", account.reasons, _since(started), folder)
            prepared = self._store.open(account.key, case)
            if self._is_done(folder, prepared):
                return CaseStatus(located.name, "skipped", (), _since(started), folder)
            progress.stage("predicting")
            answer = answer_case(
                self._model, self._network, prepared, self._options.explain, progress
            )
            content = content_of(answer, prepared)
            self._write(answer, content, prepared, folder)
        except UnwritableError:
            raise
        except GliofedError as error:
            return CaseStatus(located.name, "refused", (str(error),), _since(started), folder)
        return CaseStatus(located.name, "predicted", content.quality, _since(started), folder)

    def _faults(self, located: LocatedCase, reader: SafeReader) -> list[str]:
        result = reader.look(ReadRequest(located.images, {}, picture=False))
        files = {s.value: p for s, p in located.images.items()}
        return [
            _text(Finding(f.code, located.name, self._named(where, files), f.text))
            for where, f in result.faults
            if f.fatal
        ]

    def _named(self, where: str, files: Mapping[str, Path]) -> str:
        return display_path(files[where], self._root) if where in files else ""

    def _is_done(self, folder: Path, prepared: PreparedCase) -> bool:
        """Whether this model has predicted the case completely, with occlusion maps if
        requested."""
        before = None if (folder / UNFINISHED).exists() else read_provenance(folder)
        if before is None or (before.model, before.prepared) != (self._model.id, prepared.key):
            return False
        return before.explained or not self._options.explain

    def _write(
        self, answer: CaseAnswer, content: CaseContent, prepared: PreparedCase, folder: Path
    ) -> None:
        """Files of a start that was killed are replaced; others only with `overwrite`."""
        series = self._options.series.get(prepared.case.id, {})
        mark = folder / UNFINISHED
        left = mark.exists()
        write_text(mark, "")
        try:
            options = MaskExport(
                folder, series, self._model.id[:12], overwrite=self._options.overwrite or left
            )
            files = export_masks(answer.prediction, prepared, options)
        except GliofedError:  # nothing was written
            if not left:
                mark.unlink()
                with suppress(OSError):  # it holds another model's prediction
                    folder.rmdir()
            raise
        (folder / ANSWER).unlink(missing_ok=True)
        if series:
            report = report_bytes(answer, content.quality, files, series)
            write_bytes(folder / f"{prepared.case.id}_report.dcm", report)
        write_answer(content, prepared, self._options.store, folder)
        mark.unlink()


def _check_steps(model: TrainedModel) -> None:
    if model.recipe.steps != RECIPE:
        raise ModelError(
            f"model {model.id[:12]}: its cases were prepared by the steps {model.recipe.steps!r}, "
            f"this version of gliofed uses {RECIPE!r}; install gliofed {model.recipe.gliofed}"
        )


def _text(finding: Finding) -> str:
    where = f"{finding.file}: " if finding.file else ""
    return f"{where}{finding.title} ({finding.text}); {finding.cure}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)
