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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from gliofed.calibration.fusion import known_inputs
from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.errors import DataError, GliofedError, UnwritableError
from gliofed.inference.answer import CaseAnswer
from gliofed.inference.answer_files import (
    ANSWER,
    AnswerProvenance,
    answer_folders,
    mask_digests,
    predictions_table,
    read_provenance,
    write_answer,
)
from gliofed.inference.case import answer_case
from gliofed.inference.case_content import content_of, with_scan_volume
from gliofed.inference.dicom_report import report_bytes
from gliofed.inference.forward import DeviceNetwork
from gliofed.inference.mask_export import MaskExport, SeriesLocation, export_masks
from gliofed.inference.people import People, find_people
from gliofed.inference.unused_files import UnusedFiles, find_unused
from gliofed.models.folder import TrainedModel, check_steps
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.preprocessing.recipe import check_installed
from gliofed.preprocessing.workers import CasePreparer, PreparationRequest
from gliofed.reporting.case.content import CaseContent
from gliofed.runtime.device import Device, keep_memory
from gliofed.runtime.files import alone_in, write_bytes, write_text
from gliofed.runtime.progress import Progress, ProgressOfPart
from gliofed.types import Case, Labels, Person, Sequence
from gliofed.validation.findings import Finding
from gliofed.validation.locate import LocatedCase, LocatedSite, display_path, locate
from gliofed.validation.reader import SafeReader
from gliofed.validation.reader_messages import ReadRequest

TABLE: Final = "predictions.csv"
NOT_FOR_PREDICTION: Final = frozenset(
    {"SET-FACE", "NII-NAME", "NII-DATE", "NII-NUMBER", "SET-SEQUENCE-MISSING", "SET-MASK-ORPHAN"}
)
"""Codes of `gliofed check` on sharing, or on what the page states by itself."""
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
    limits. notes: lines on DICOM series that were not converted, of which those of a case begin
    with its subject. person: age and sex of the only case, in place of participants.tsv."""

    out: Path
    store: Path
    overwrite: bool = False
    series: Mapping[str, Mapping[Sequence, SeriesLocation]] = field(default_factory=dict)
    explain: bool = False
    accept_quality: bool = False
    notes: tuple[str, ...] = ()
    person: Person = field(default_factory=Person)


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
    check_steps(model)
    check_installed(model.recipe.prepare)
    sites, findings = locate(path.resolve())
    cases = [(site, located) for site in sites for located in site.cases if located.images]
    everywhere = [located for site in sites for located in site.cases]
    unused = find_unused(path.resolve(), everywhere, options.notes)
    if not cases:
        listed = "".join(f"\n  {line}" for _, lines in unused.others for line in lines)
        raise DataError(
            f"{path}: has no scan; give a BIDS hospital, nnU-Net's imagesTs with its dataset.json, "
            f"case folders, or a folder of images named by T1, T1CE, T2 or FLAIR{listed}"
        )
    subjects = Counter(located.subject for _, located in cases)
    people = find_people(model, sites, len(cases), options.person)
    batch = _BatchPrediction(path.resolve(), model, options, machine, (findings, unused, people))
    statuses = [
        CaseStatus(folder, "refused", lines, 0.0, options.out, lines)
        for folder, lines in unused.others
    ]
    recipe = model.recipe
    request = PreparationRequest(recipe.grid, recipe.prepare, recipe.quality, options.store)
    with (
        alone_in(options.out),
        SafeReader() as reader,
        ExitStack() as stack,
    ):
        helpers = _HelperProcesses(reader, stack, request)
        for done, (site, located) in enumerate(cases):
            part = ProgressOfPart(progress, done, len(cases), located.name)
            unique = subjects[located.subject] == 1
            name = located.subject if unique else f"{site.name}_{located.subject}"
            status = batch.predict(site, located, name, helpers, part)
            if status.status != "predicted":  # whose quality has them
                status = replace(status, reasons=(*status.reasons, *unused.lines(located.name)))
            statuses.append(replace(status, unused=unused.by_case.get(located.name, ())))
        write_text(options.out / TABLE, predictions_table(answer_folders(options.out)))
    return tuple(statuses)


class _HelperProcesses:
    """Scans are opened in another process, since a damaged one may crash it."""

    def __init__(self, reader: SafeReader, stack: ExitStack, request: PreparationRequest) -> None:
        """stack: closes the processes. request: the model's own settings."""
        self.reader, self._stack, self._request = reader, stack, request
        self._preparers: dict[bool, CasePreparer] = {}
        self.preparer_for(head=False).start()  # while the first case is checked

    def preparer_for(self, head: bool) -> CasePreparer:
        """By the model's settings; for a head, those of a model of stripped scans extract the brain
        and register the sequences, which are aligned in data sets of stripped scans.

        Raises DataError where a package for that is missing."""
        strip = head and self._request.steps.brain == "stripped"
        if strip not in self._preparers:
            request = self._request
            if strip:
                steps = replace(request.steps, brain="deepbet", register=True)
                check_installed(steps)
                request = replace(request, steps=steps)
            preparer = CasePreparer(request, processes=1)
            self._preparers[strip] = self._stack.enter_context(preparer)
        return self._preparers[strip]


class _BatchPrediction:
    """The inputs shared by all cases."""

    def __init__(
        self,
        root: Path,
        model: TrainedModel,
        options: BatchOptions,
        machine: Device,
        found: tuple[Iterable[Finding], UnusedFiles, People],
    ) -> None:
        """found: findings on names and folders, unused files, and age and sex of the cases."""
        self._root, self._model, self._options = root, model, options
        self._network = DeviceNetwork(model.network().to(machine.device), machine)
        self._store = PreparedStore(options.store)
        self._caution = (model.recipe.caution,) if model.recipe.caution else ()
        self._findings, self._unused, self._people = tuple(found[0]), found[1], found[2]

    def predict(
        self,
        site: LocatedSite,
        located: LocatedCase,
        name: str,
        helpers: _HelperProcesses,
        progress: Progress,
    ) -> CaseStatus:
        """One case, from its scans to the files of its prediction. name: of its folder."""
        unused = self._unused.lines(located.name)
        started = time.monotonic()
        progress.stage("checking")
        folder = self._options.out / name
        found = [f for f in self._findings if f.case == located.name]
        found += self._check(located, helpers.reader)
        errors = tuple(_text(f) for f in found if f.severity == "error")
        if errors:
            return CaseStatus(located.name, "refused", errors, _since(started), folder)
        person = self._people.person(site, located)
        case = Case(name, site.name, located.subject, located.images, None, Labels(), person)
        head = any(f.code == "SET-NOT-STRIPPED" for f in found)
        warnings = tuple(w for f in found if (w := self._warning(f)))
        try:
            progress.stage("preparing")
            (account,) = helpers.preparer_for(head).prepare([case])
            if account.key is None:
                return CaseStatus(located.name, "refused", account.reasons, _since(started), folder)
            prepared = self._store.open(account.key, case)
            limits = self._model.recipe.quality
            poor = quality_faults(prepared.measures, limits, prepared.placements)
            if poor and not self._options.accept_quality:
                reasons = (*map(_with_cure_of_predict, poor), *warnings)
                return CaseStatus(located.name, "refused", reasons, _since(started), folder)
            if self._is_done(folder, prepared):
                return CaseStatus(located.name, "skipped", warnings, _since(started), folder)
            progress.stage("predicting")
            answer = answer_case(
                self._model, self._network, prepared, self._options.explain, progress
            )
            content = content_of(answer, prepared, (*self._caution, *warnings, *unused))
            self._write(answer, content, prepared, folder)
        except UnwritableError:
            raise
        except GliofedError as error:
            return CaseStatus(located.name, "refused", (str(error),), _since(started), folder)
        return CaseStatus(located.name, "predicted", content.quality, _since(started), folder)

    def _check(self, located: LocatedCase, reader: SafeReader) -> list[Finding]:
        result = reader.look(ReadRequest(located.images, {}, picture=False))
        files = {s.value: p for s, p in located.images.items()}
        return [
            Finding(f.code, located.name, self._named(where, files), f.text)
            for where, f in result.faults
        ]

    def _warning(self, finding: Finding) -> str:
        """A warning that bears on the prediction, or empty."""
        if finding.severity != "warning" or finding.code in NOT_FOR_PREDICTION:
            return ""
        if finding.code != "SET-NOT-STRIPPED":
            return _text(finding)
        if self._model.recipe.prepare.brain != "stripped":
            return ""  # the recipe strips every scan that needs it
        return (
            f"The scans show a head ({finding.text}) and the model was trained on skull-stripped "
            "scans: the brain was extracted with deepbet and the sequences were registered; check "
            "both on the images"
        )

    def _named(self, where: str, files: Mapping[str, Path]) -> str:
        return display_path(files[where], self._root) if where in files else ""

    def _is_done(self, folder: Path, prepared: PreparedCase) -> bool:
        """Whether this model has predicted the case completely, with occlusion maps if
        requested."""
        before = None if (folder / UNFINISHED).exists() else read_provenance(folder)
        if before is None or before.model != self._model.id or self._differs(before, prepared):
            return False
        return before.explained or not self._options.explain

    def _is_outdated(self, folder: Path, prepared: PreparedCase) -> bool:
        """Whether this model predicted the case from other scans, as before a decision on a series,
        or another age or sex, and nobody changed its masks since."""
        before = read_provenance(folder)
        if before is None or before.model != self._model.id or not self._differs(before, prepared):
            return False
        return before.masks == mask_digests(folder)

    def _differs(self, before: AnswerProvenance, prepared: PreparedCase) -> bool:
        """Whether the case has other scans, or another age or sex that the model uses."""
        person = known_inputs(prepared.case.person) if self._model.fusion else {}
        return (before.prepared, before.person) != (prepared.key, person)

    def _write(
        self, answer: CaseAnswer, content: CaseContent, prepared: PreparedCase, folder: Path
    ) -> None:
        """Files of a start that was killed, and unchanged ones of other scans, are replaced; others
        only with `overwrite`."""
        series = self._options.series.get(prepared.case.id, {})
        mark = folder / UNFINISHED
        left = mark.exists()
        write_text(mark, "")
        try:
            own = self._options.overwrite or left or self._is_outdated(folder, prepared)
            options = MaskExport(folder, series, self._model.id[:12], overwrite=own)
            files = export_masks(answer.prediction, prepared, options)
        except GliofedError:  # nothing was written
            if not left:
                mark.unlink()
                with suppress(OSError):  # it holds another model's prediction
                    folder.rmdir()
            raise
        (folder / ANSWER).unlink(missing_ok=True)
        content = with_scan_volume(content, files)
        if series:
            report = report_bytes(answer, content.quality, files, series)
            write_bytes(folder / f"{prepared.case.id}_report.dcm", report)
        write_answer(content, prepared, self._options.store, folder)
        mark.unlink()


def _with_cure_of_predict(fault: str) -> str:
    """A fault of the preparation, with a cure other than a study's settings."""
    return (
        f"{fault.partition('; ')[0]}; look at the scans and replace what is wrong, or predict them "
        "as they are with --accept-quality"
    )


def _text(finding: Finding) -> str:
    where = f"{finding.file}: " if finding.file else ""
    return f"{where}{finding.title} ({finding.text}); {finding.cure}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)
