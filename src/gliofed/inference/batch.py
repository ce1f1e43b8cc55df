"""Many cases answered, one after the other; what is whole stays, and a second start skips it.

<out>/<case>/answer.json        all that is said of the case, with maps.safetensors; written last
<out>/<case>/..._mask.nii.gz    the outline on the grid of each of its scans, and its sidecar
<out>/<case>/..._mask.dcm       from DICOM: the outline on each series
<out>/<case>/..._report.dcm     from DICOM: the answer as a Structured Report of one series
<out>/predictions.csv           every case in one table, which `gliofed score` reads
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from gliofed.data.store import RECIPE, PreparedCase, PreparedStore
from gliofed.errors import DataError, GliofedError, ModelError, UnwritableError
from gliofed.inference.answer_files import (
    ANSWER,
    CaseAnswer,
    answer_folders,
    predictions_table,
    read_provenance,
    write_answer,
)
from gliofed.inference.case import answer_case
from gliofed.inference.dicom_report import report_bytes
from gliofed.inference.mask_export import SeriesLocation, export_masks
from gliofed.models.folder import TrainedModel
from gliofed.preprocessing.cases import prepare_one
from gliofed.preprocessing.recipe import check_installed
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
"""Stands in a case's folder while it is written: what is there then is nobody's correction."""
Fate = Literal["answered", "kept", "refused"]


@dataclass(frozen=True)
class CaseStatus:
    """What became of one case. kept: answered by the same model before. reasons: why it was
    refused, each with its cure; of a case that was answered, what to look at."""

    case: str
    fate: Fate
    reasons: tuple[str, ...]
    seconds: float
    folder: Path


@dataclass(frozen=True)
class BatchOptions:
    """out: folder of the answers. store: of prepared cases. overwrite: what was exported before,
    and may have been corrected since, is written anew. series: DICOM series by subject, to which
    answers in DICOM are written besides. why: also find what each marker's answer rests on."""

    out: Path
    store: Path
    overwrite: bool = False
    series: Mapping[str, Mapping[Sequence, SeriesLocation]] = field(default_factory=dict)
    why: bool = False


def predict_all(
    path: Path,
    model: TrainedModel,
    wanted: BatchOptions,
    machine: Device,
    ended: Callable[[CaseStatus], None],
    progress: Progress,
) -> tuple[CaseStatus, ...]:
    """Every case at or below `path`, as `check` finds them: a BIDS hospital or several, case
    folders in the style of BraTS, or one folder of images.

    A case that cannot be used is refused with its faults and does not stop the others. Raises
    DataError where nothing is there or a package is missing, ModelError for a model prepared by
    other steps, CheckpointError where another process works in `out`, UnwritableError, OSError.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the scans that are to be answered")
    keep_memory()
    _check_steps(model)
    check_installed(model.recipe.prepare)
    sites, odd = locate(path.resolve())
    places = [(site, place) for site in sites for place in site.places if place.images]
    if not places:
        raise DataError(
            f"{path}: no scan is there; give a BIDS hospital, case folders, or a folder of images "
            "whose names say T1, T1CE, T2 or FLAIR"
        )
    twice = Counter(place.subject for _, place in places)
    work = _BatchPrediction(path.resolve(), model, wanted, machine, odd)
    fates = []
    with alone_in(wanted.out), SafeReader() as reader:
        for done, (site, place) in enumerate(places):
            part = ProgressOfPart(progress, done, len(places), place.case)
            name = place.subject if twice[place.subject] == 1 else f"{site.name}_{place.subject}"
            fate = work.one(site, place, name, reader, part)
            fates.append(fate)
            ended(fate)
        write_text(wanted.out / TABLE, predictions_table(answer_folders(wanted.out)))
    return tuple(fates)


class _BatchPrediction:
    """What stays the same from case to case."""

    def __init__(
        self,
        root: Path,
        model: TrainedModel,
        wanted: BatchOptions,
        machine: Device,
        odd: Iterable[Finding],
    ) -> None:
        self._root, self._model, self._wanted, self._machine = root, model, wanted, machine
        self._net = model.net().to(machine.device)
        self._store = PreparedStore(wanted.store)
        self._store.sweep()
        self._odd = [f for f in odd if f.severity == "error"]

    def one(
        self,
        site: LocatedSite,
        place: LocatedCase,
        name: str,
        reader: SafeReader,
        progress: Progress,
    ) -> CaseStatus:
        """A case from its files to what is written of it. name: of its folder."""
        started = time.monotonic()
        progress.stage("checking")
        folder = self._wanted.out / name
        faults = [_words(f) for f in self._odd if f.case == place.case]
        faults += self._faults(place, reader)
        if faults:
            return CaseStatus(place.case, "refused", tuple(faults), _since(started), folder)
        own = self._model.recipe
        case = Case(name, site.name, place.subject, place.images, None, Labels())
        try:
            progress.stage("preparing")
            prepared = prepare_one(case, own.grid, own.prepare, self._store)[0]
            if self._is_kept(folder, prepared):
                return CaseStatus(place.case, "kept", (), _since(started), folder)
            progress.stage("predicting")
            found = answer_case(
                self._model, self._net, prepared, self._machine, self._wanted.why, progress
            )
            self._write(found, prepared, folder)
        except UnwritableError:
            raise
        except GliofedError as error:
            return CaseStatus(place.case, "refused", (str(error),), _since(started), folder)
        self._store.save_digests()
        return CaseStatus(place.case, "answered", found.content.quality, _since(started), folder)

    def _faults(self, place: LocatedCase, reader: SafeReader) -> list[str]:
        looked = reader.look(ReadRequest(place.images, {}, picture=False))
        files = {s.value: p for s, p in place.images.items()}
        return [
            _words(Finding(f.code, place.case, self._named(where, files), f.text))
            for where, f in looked.faults
            if f.fatal
        ]

    def _named(self, where: str, files: Mapping[str, Path]) -> str:
        return display_path(files[where], self._root) if where in files else ""

    def _is_kept(self, folder: Path, prepared: PreparedCase) -> bool:
        """Answered by this model before, wholly, and explained if that is asked."""
        before = None if (folder / UNFINISHED).exists() else read_provenance(folder)
        if before is None or (before.model, before.key) != (self._model.id, prepared.key):
            return False
        return before.explained or not self._wanted.why

    def _write(self, found: CaseAnswer, prepared: PreparedCase, folder: Path) -> None:
        """What was left by a start that was killed is written over, and nothing else unasked."""
        series = self._wanted.series.get(prepared.case.id, {})
        mark = folder / UNFINISHED
        left = mark.exists()
        write_text(mark, "")
        try:
            files = export_masks(
                found.prediction, prepared, folder, series, model=self._model.id[:12],
                overwrite=self._wanted.overwrite or left,
            )  # fmt: skip
        except GliofedError:  # then nothing was written
            if not left:
                mark.unlink()
                with suppress(OSError):  # another's answer is there
                    folder.rmdir()
            raise
        (folder / ANSWER).unlink(missing_ok=True)
        if series:
            report = report_bytes(found.content, files, series)
            write_bytes(folder / f"{prepared.case.id}_report.dcm", report)
        write_answer(found, prepared, self._wanted.store, folder)
        mark.unlink()


def _check_steps(model: TrainedModel) -> None:
    if model.recipe.steps != RECIPE:
        raise ModelError(
            f"model {model.id[:12]}: its cases were prepared by the steps {model.recipe.steps!r}, "
            f"this version of gliofed has {RECIPE!r}; install gliofed {model.recipe.gliofed}"
        )


def _words(finding: Finding) -> str:
    where = f"{finding.file}: " if finding.file else ""
    return f"{where}{finding.title} ({finding.text}); {finding.cure}"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 1)
