"""Models as folders: looked at, brought up to date, and asked about scans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.errors import DataError, ModelError, UpdateError
from gliofed.experiment.watch import Silent, Watcher

if TYPE_CHECKING:
    from gliofed.infer.batch import CaseFate
    from gliofed.infer.handout.forms import HandedOut
    from gliofed.io.dicom.web import Pacs
    from gliofed.io.model import Model


def read_model(folder: Path) -> Model:
    """A model whose every file is as it was written. Raises ModelError."""
    from gliofed.io.model import read_model as read

    return read(folder)


def upgrade_model(old: Path, study: Path, out: Path) -> str:
    """A model of an older format as a folder of today's; its id.

    old: the `model.safetensors` of a federation's run (format 1), which does not say how cases are
    prepared for it; `study` does. A `calibration.json` beside it, of the same run, goes along.
    Raises ModelError: not such a file, of another study as far as digests of that version of
    gliofed can tell, or weights that are not of the study's network;
    CheckpointError: a calibration that is damaged or of another run; StudyError, OSError.
    """
    from gliofed import __version__
    from gliofed.consortium.segment import fit_for_sites
    from gliofed.fed.calibrating import last_calibrated
    from gliofed.fed.wire import load
    from gliofed.io.model import check_weights, recipe_of, write_model
    from gliofed.study import load_study

    try:
        weights, note = load(old)
        run, rounds, made_of = str(note["run"]), int(note["rounds"]), note["study"]
    except (UpdateError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{old}: is no model of an older format ({error})") from None
    asked = fit_for_sites(load_study(study))
    if note.get("gliofed") == __version__ and made_of != asked.digest:
        raise ModelError(
            f"{old}: was trained by a study of digest {str(made_of)[:12]}, {study} has "
            f"{asked.digest[:12]}; give the very study that it was started with"
        )
    recipe = recipe_of(asked, run, rounds)
    check_weights(weights, recipe, old)
    found = last_calibrated(old.parent, run, rounds)
    calibrations = {0: found.calibration} if found else {}
    return write_model(out, recipe, weights, calibrations, lambda _: "")


def export_model(folder: Path, form: str, out: Path) -> HandedOut:
    """A model as an ONNX file (`onnx`) or a MONAI bundle (`monai`), for others to run.

    Kept only where it answers as the model does. Raises as `gliofed.infer.handout.forms.hand_out`.
    """
    from gliofed.infer.handout.forms import hand_out

    return hand_out(folder, form, out)


def predict(
    model: Path,
    scans: str,
    out: Path,
    store: Path | None = None,
    overwrite: bool = False,
    why: bool = False,
    pacs: Pacs | None = None,
    watcher: Watcher | None = None,
    ended: Callable[[CaseFate], None] = lambda fate: None,
) -> tuple[CaseFate, ...]:
    """Answer every case at or below `scans`, each in a folder of its own below `out`.

    model: a model's folder. scans: BIDS hospitals, case folders or a folder of images; a folder or
    archive of DICOM, or a DICOMweb address with what `pacs` asks of it, which are taken in below
    `out` first. Sequences may be missing. store: of prepared cases (default: `out`/store). why:
    also find what each marker's answer rests on, which asks the network 150 times. A case answered
    by this model before is kept; one that cannot be used is refused with its faults and stops no
    other. Raises GliofedError and its kinds as `gliofed.infer.batch.predict_all` and
    `gliofed.infer.source.bring` say.
    """
    from gliofed.infer.batch import Wanted, predict_all
    from gliofed.infer.source import bring
    from gliofed.learn.machine import this_machine

    own, heard = read_model(model), watcher or Silent()
    found = bring(scans, out, pacs, heard)
    for note in found.notes:
        heard.note(note)
    heard.stage(f"answering with model {own.id[:12]}")
    wanted = Wanted(out, store or out / "store", overwrite, found.series, why)
    return predict_all(found.folder, own, wanted, this_machine(), ended, heard.progress)


def report(
    answers: Path, store: Path | None = None, watcher: Watcher | None = None
) -> tuple[Path, ...]:
    """Write the page of each case that `predict` answered, `report.html` in its folder.

    answers: the folder of all, or of one case. store: of the prepared cases, where it is not where
    it was. Raises DataError: no answer there, or a damaged one; StoreError: the prepared scans of
    a case are gone. Pages written by then stay.
    """
    from gliofed.infer.answers import PAGE, answered_in, read_answer
    from gliofed.report.case_page import write_case_page

    folders = answered_in(answers)
    if not folders:
        raise DataError(f"{answers}: holds no answers; give the folder that `gliofed predict` "
                        "wrote to")  # fmt: skip
    heard = watcher or Silent()
    heard.stage("writing pages")
    for done, folder in enumerate(folders):
        heard.progress(done, len(folders), folder.name)
        write_case_page(read_answer(folder, store), folder / PAGE)
    return tuple(f / PAGE for f in folders)
