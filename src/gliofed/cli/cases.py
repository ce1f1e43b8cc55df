"""The command's verbs of single cases: answered, shown, brought back to the scan, corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliofed.cli import pacs
from gliofed.cli.correct import correct
from gliofed.cli.extra import extra
from gliofed.cli.view import view


def add_to(app: typer.Typer) -> None:
    """Add them to the command."""
    for verb in (predict, report, view, export, correct):
        app.command()(verb)


def predict(
    model: Annotated[Path, typer.Argument(help="A model's folder.")],
    scans: Annotated[
        str,
        typer.Argument(
            help="BIDS hospitals, case folders or images; DICOM: a folder, an archive, an address."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the answers, one folder a case.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: OUT/store].")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write outlines anew that are there already.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also compute occlusion maps: 150 passes more.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--report", help="Also write each case's page, as `report` does.")
    ] = False,
    study: pacs.Studies = None,
    patient: pacs.Patient = "",
    secret: pacs.SecretFile = None,
    secret_env: pacs.SecretName = "",
    ca: pacs.Authority = None,
    plain: pacs.Plain = False,
) -> None:
    """Outline a tumour and predict its markers, case by case. Sequences may be missing.

    Interrupt it when you like: cases that were answered are not answered again.
    Research use only. Not a medical device.
    """
    from gliofed.cli import predict as verb
    from gliofed.cli.predict import PredictOptions

    asked = None
    if study or patient:
        with extra("hospital"):
            from gliofed.dicom.dicomweb import DicomWebServer

        asked = DicomWebServer(tuple(study or ()), patient, secret, secret_env, ca, plain)
    verb.predict(model, scans, PredictOptions(out, store, overwrite, explain, page), asked)


def report(
    answers: Annotated[Path, typer.Argument(help="Folder of answers, or of one.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of the prepared cases, where it has moved.")
    ] = None,
) -> None:
    """Write the page of each case that `predict` answered: one HTML file, viewer inside.

    Research use only. Not a medical device.
    """
    from gliofed.cli import report as verb

    verb.report(answers, store)


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
        typer.Option(help="Write this sequence in the network's space, to draw on."),
    ] = None,
    model: Annotated[str, typer.Option(help="The model whose outline it is.")] = "",
    person: Annotated[str, typer.Option(help="Who drew or corrected it (Family^Given).")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Bring an outline back to every scan of its case: NIfTI, and DICOM-SEG for a PACS.

    Research use only. Not a medical device.
    """
    from gliofed.cli import export as verb

    verb.export(mask, case, out, series or [], choose or [], image or [], model, person, overwrite)
