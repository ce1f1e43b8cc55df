"""Commands for models and cases: predict, report, view, export, correct, model."""

from __future__ import annotations

import datetime
import sys
import webbrowser
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import gliofed
from gliofed.cli import options
from gliofed.cli.terminal import TerminalProgress, needs_extra, one_line_errors
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.types import Sequence

if TYPE_CHECKING:
    from gliofed import CaseStatus, CorrectedLabel, ExportedMask

GROUP: Final = "Models and cases"

model = typer.Typer(
    no_args_is_help=True, help="Show, fetch, combine, upgrade or export a model folder."
)


def add_to(app: typer.Typer) -> None:
    """Register the commands of this group."""
    for command in (predict, report, view, export, correct):
        app.command(rich_help_panel=GROUP)(command)
    app.add_typer(model, name="model", rich_help_panel=GROUP)


def predict(
    scans: Annotated[
        str,
        typer.Argument(
            help="BIDS hospitals, case folders or images; DICOM: a folder, an archive, an address."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results, one folder a case.")],
    model: Annotated[
        Path | None, typer.Option(help="A model folder [default: the repository's example model].")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: OUT/store].")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace masks that are there already.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Also find what each prediction rests on: 150 passes more."),
    ] = False,
    page: Annotated[
        bool, typer.Option("--report", help="Also write the page of each case, as `report` does.")
    ] = False,
    accept_quality: Annotated[
        bool,
        typer.Option(
            "--accept-quality",
            help="Also predict cases that fail the preparation's quality limits.",
        ),
    ] = False,
    age: Annotated[
        str, typer.Option(help="Years, of one case [default: participants.tsv, if BIDS].")
    ] = "",
    sex: Annotated[str, typer.Option(help="F or M, of one case [default: as for --age].")] = "",
    study: options.DicomStudies = None,
    patient: options.DicomPatient = "",
    secret: options.SecretFile = None,
    secret_env: options.SecretVariable = "",
    ca: options.CertificateFile = None,
    plain: options.PlainHttp = False,
) -> None:
    """Segment the tumour and predict its markers, case by case. Sequences may be missing.

    It can be interrupted: predicted cases are not predicted again. Ends with status 1 where a case
    was refused or a file that looks like a scan is not used, 2 where no case was predicted.
    Research use only. Not a medical device.
    """
    server = None
    if study or patient:
        with needs_extra("hospital"):
            uids = tuple(study or ())
            server = gliofed.DicomWebServer(uids, patient, secret, secret_env, ca, plain)
    choices = gliofed.PredictOptions(
        model, store, overwrite, explain, server, accept_quality, age, sex
    )
    with one_line_errors(after="complete cases stay, and the same command predicts the others"):
        with TerminalProgress() as progress:
            cases = gliofed.predict(scans, out, choices, progress)
            predicted = sum(case.status != "refused" for case in cases)
            if page and predicted:
                gliofed.report(out, store, progress)
        for case in cases:
            typer.echo(_case_line(case))
        typer.echo(f"{predicted} of {len(cases)} cases predicted, in {out}")
        if predicted:
            typer.echo(f"next: gliofed view {out} --open")
        typer.echo(RESEARCH_USE_ONLY)
    sys.exit(0 if all(case.complete for case in cases) else 1 if predicted else 2)


def _case_line(case: CaseStatus) -> str:
    reasons = "".join(f"\n  {reason}" for reason in case.reasons)
    return f"{case.case}: {case.status}, {case.seconds:.1f} s{reasons}"


def report(
    predictions: Annotated[Path, typer.Argument(help="The --out of `gliofed predict`.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the prepared cases, if it was moved.")
    ] = None,
) -> None:
    """Write the page of each predicted case: one HTML file with a viewer inside.

    Research use only. Not a medical device.
    """
    with one_line_errors(after="written pages stay"):
        with TerminalProgress() as progress:
            pages = gliofed.report(predictions, store, progress)
        for page in pages:
            typer.echo(page)
        typer.echo(RESEARCH_USE_ONLY)


def view(
    predictions: Annotated[Path, typer.Argument(help="The --out of `gliofed predict`.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the prepared cases, if it was moved.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 0,
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
) -> None:
    """Show predicted cases as a worklist in the browser, on this machine alone, until Ctrl-C.

    Research use only. Not a medical device.
    """

    def ready(address: str) -> None:
        typer.echo(f"open {address}\nWhoever has this address sees the cases. Ctrl-C ends it.")
        typer.echo(RESEARCH_USE_ONLY)
        if browser:
            webbrowser.open(address)

    with one_line_errors(), needs_extra("view"):
        gliofed.view(predictions, store, (host, port), ready)


def export(
    case: Annotated[Path, typer.Option(help="The case's folder in the prepared store.")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    mask: Annotated[
        Path | None,
        typer.Argument(help="A mask or probability map in the network's space (NIfTI)."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option(help="SEQUENCE=FOLDER of DICOM files: write a DICOM-SEG for them as well."),
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(help="SEQUENCE=NUMBER or UID of the series, where its folder holds several."),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="Write this sequence in the network's space, to draw a mask on."),
    ] = None,
    model: Annotated[str, typer.Option(help="The model that made the mask.")] = "",
    person: Annotated[str, typer.Option(help="Who drew or corrected it (Family^Given).")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Resample a mask to every scan of its case: NIfTI, and DICOM-SEG for a PACS.

    Research use only. Not a medical device.
    """
    folders, choices = _pairs("--series", series or ()), _pairs("--choose", choose or ())
    sequences = [_sequence("--image", name) for name in image or ()]
    if mask is None and (folders or not sequences):
        raise typer.BadParameter("give a MASK, or --image with a sequence to draw on")
    if choices.keys() - folders.keys():
        raise typer.BadParameter("--choose names a sequence that has no --series")
    with one_line_errors(after="the same command with --overwrite writes all files again"):
        for sequence in sequences:
            path = gliofed.export_image(case, sequence, out, overwrite)
            typer.echo(f"{path}: {sequence.value} in the network's space")
        if mask is not None:
            locations = {
                s: gliofed.SeriesLocation(Path(folder), choices.get(s, ""))
                for s, folder in folders.items()
            }
            target = gliofed.MaskExport(out, locations, model, person, overwrite)
            for exported in gliofed.export_mask(mask, case, target):
                typer.echo(_export_line(exported))
        typer.echo(RESEARCH_USE_ONLY)


def _export_line(exported: ExportedMask) -> str:
    if exported.path is None:
        return f"{exported.sequence.value}: the mask is empty, so no {exported.kind} was written"
    empty = "" if exported.volume_ml else ", empty mask"
    return f"{exported.path}: {exported.kind}, {exported.volume_ml:.2f} ml{empty}" + _outside(
        exported.outside_ml
    )


def _outside(volume_ml: float) -> str:
    return f", {volume_ml:.2f} ml more lie outside this scan" if volume_ml else ""


def _pairs(option: str, texts: Iterable[str]) -> Mapping[Sequence, str]:
    pairs: dict[Sequence, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        sequence = _sequence(option, name)
        if not value:
            raise typer.BadParameter(f"{option} {text}: expected SEQUENCE=VALUE")
        if sequence in pairs:
            raise typer.BadParameter(f"{option}: {sequence.value} is given twice")
        pairs[sequence] = value
    return pairs


def _sequence(option: str, name: str) -> Sequence:
    try:
        return Sequence(name.upper())
    except ValueError:
        known = ", ".join(Sequence)
        raise typer.BadParameter(f"{option}: {name!r} is none of {known}") from None


def correct(
    mask: Annotated[Path, typer.Argument(help="The corrected mask: NIfTI or DICOM-SEG.")],
    hospital: Annotated[Path, typer.Option(help="The hospital's BIDS folder.")],
    subject: Annotated[str, typer.Option(help="The case: sub-X or X.")],
    author: Annotated[str, typer.Option(help="Who corrected it.")],
    date: Annotated[str, typer.Option(help="When, as 2026-02-28 [default: today].")] = "",
    case: Annotated[
        Path | None,
        typer.Option(help="The case's folder in the store: the mask is in the network's space."),
    ] = None,
    sequence: Annotated[
        str, typer.Option(help="The scan whose grid the mask has [default: found by the grid].")
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(help="A value, or segment, that is tumour; may be repeated."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="The exported file that was corrected, if still there.")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="An empty mask is meant: there is no tumour.")
    ] = False,
) -> None:
    """Take a corrected mask as the label of its case; the label before it is kept.

    Research use only. Not a medical device.
    """
    scan = _sequence("--sequence", sequence) if sequence else None
    correction = gliofed.Correction(
        mask, author, _day(date), case, scan, tuple(label or ()), export, empty
    )
    with one_line_errors(
        after="the same command completes it; until then the label before it is in force"
    ):
        typer.echo(_correction_line(gliofed.correct(correction, hospital, subject)))
        typer.echo(RESEARCH_USE_ONLY)


def _correction_line(label: CorrectedLabel) -> str:
    before = "" if label.volume_before_ml is None else f" (was {label.volume_before_ml:.2f} ml)"
    earlier = "" if label.earlier is None else f"; the label before it is {label.earlier}"
    volume = f"{label.volume_ml:.2f} ml{before}{_outside(label.outside_ml)}"
    return f"{label.path}: on {label.sequence.value}, {volume}{earlier}"


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text) if text else datetime.date.today()
    except ValueError:
        raise typer.BadParameter(f"--date {text!r}: expected a day as 2026-02-28") from None


@model.command("show")
def show_model(folder: Annotated[Path, typer.Argument(help="The model folder.")]) -> None:
    """Check every file of a model folder and describe the model."""
    from gliofed.reporting.case import answer_text

    with one_line_errors():
        trained = gliofed.read_model(folder)
        recipe = trained.recipe
        rows = {
            "model": trained.id,
            "study": f"{recipe.name}, digest {recipe.study}",
            "training": f"run {recipe.run}, {recipe.rounds} rounds, gliofed {recipe.gliofed}",
            "started from": f"model {recipe.base}" if recipe.base else "random weights",
            "network": recipe.net.preset + (f", stem {recipe.net.stem}" if recipe.net.stem else ""),
            "voxels": " x ".join(str(s) for s in recipe.grid.spacing_mm) + " mm",
            "markers": ", ".join(f"{m.marker} ({', '.join(m.classes)})" for m in recipe.trained),
            "not trained": ", ".join((*recipe.untrained, *trained.untrained_sequences)) or "none",
            "calibration": _calibrated_for(trained.calibrations),
            "input": answer_text.model_input(recipe.prepare.brain),
            "patients": "synthetic, for demonstration" if recipe.synthetic else "real",
        }
        for name, text in rows.items():
            typer.echo(f"{name:12} {text}")
        typer.echo(RESEARCH_USE_ONLY)


def _calibrated_for(calibrations: Mapping[int, object]) -> str:
    if not calibrations:
        return "none: probabilities are not calibrated"
    counts = ", ".join(map(str, sorted(calibrations)))
    return f"for cases with these numbers of missing sequences: {counts}"


@model.command("fetch")
def fetch_model(
    kit: Annotated[Path, typer.Argument(help="This hospital's kit.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
) -> None:
    """Take the finished model of a federation out of a hospital's kit, with its scores here.

    Research use only. Not a medical device.
    """
    from gliofed.cli.screens.site import show_own_scores

    with one_line_errors(), needs_extra("federation"):
        fetched = gliofed.fetch_model(kit, out)
        recipe = fetched.model.recipe
        typer.echo(f"wrote {out}: model {fetched.model.id}, {recipe.name}, {recipe.rounds} rounds")
        show_own_scores(fetched.scores)
        typer.echo(RESEARCH_USE_ONLY)


@model.command("combine")
def combine_models(
    folders: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model folders.")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
) -> None:
    """Combine models of one study, such as its seeds, into an ensemble: one model folder."""
    with one_line_errors():
        typer.echo(f"wrote {out}: model {gliofed.combine_models(folders, out)}")
        typer.echo("without age and sex, which its models may join to IDH")
        typer.echo("not calibrated: `gliofed validate --recalibrated` calibrates it on new cases")


@model.command("upgrade")
def upgrade_model(
    old: Annotated[Path, typer.Argument(help="The old model.safetensors of a federation's run.")],
    study: Annotated[Path, typer.Option(help="The study that it was trained by (TOML).")],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
) -> None:
    """Convert a model of an older format into a model folder; the old file stays."""
    with one_line_errors():
        typer.echo(f"wrote {out}: model {gliofed.upgrade_model(old, study, out)}")


@model.command("export")
def export_model(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="The model folder.")],
    to: Annotated[str, typer.Option(help="onnx (one file) or monai (a bundle's folder).")],
    out: Annotated[Path, typer.Option(help="File or folder to write; not there yet.")],
) -> None:
    """Export a model as ONNX or as a MONAI bundle, and compare its outputs with the model's."""
    with one_line_errors():
        exported = gliofed.export_model(folder, to, out)
        typer.echo(f"wrote {exported.path}: {exported.title} of model {exported.model}")
        if exported.left_out:
            typer.echo(exported.left_out)
        typer.echo(f"largest difference from the model's logits: {exported.difference:.1e}")
        typer.echo(RESEARCH_USE_ONLY)
