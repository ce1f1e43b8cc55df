"""Commands for a hospital's data: intake, receive, check, inspect, prepare, phantom."""

from __future__ import annotations

import json as json_format
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

import gliofed
from gliofed.cli import options
from gliofed.cli.terminal import TerminalProgress, needs_extra, one_line_errors

if TYPE_CHECKING:
    from gliofed import CasePreparation

GROUP: Final = "Data"


def add_to(app: typer.Typer) -> None:
    """Register the commands of this group."""
    for command in (check, intake, receive, inspect, prepare, phantom):
        app.command(rich_help_panel=GROUP)(command)


def check(
    path: Annotated[
        Path, typer.Argument(help="A hospital, a folder of them, an image or a table.")
    ],
    json: Annotated[Path | None, typer.Option(help="Write the findings as JSON.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write an HTML page with thumbnails of every case.")
    ] = None,
    format_id: options.DatasetFormat = "bids",
) -> None:
    """Check images, masks and tables: every fault with its cure.

    Ends with status 1 where an error was found. Nothing is changed. Files are read in a process
    with limited memory and time, so that a damaged file does no harm.
    """
    from gliofed.cli.screens.findings import show_findings
    from gliofed.validation.codes import Severity

    with one_line_errors():
        with TerminalProgress() as progress:
            result = gliofed.check(path, json, sheet, progress, format_id)
        show_findings(result, [file for file in (json, sheet) if file is not None])
    if result.count(Severity.ERROR):
        sys.exit(1)


def intake(
    source: Annotated[
        str, typer.Argument(help="A folder of DICOM, an archive of one, or a DICOMweb address.")
    ],
    out: Annotated[Path, typer.Option(help="The hospital folder to make or add to.")],
    private: Annotated[
        Path | None,
        typer.Option(help="Folder that never leaves the site [default: <out>-private]."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Key of the pseudonyms [default: key.txt in the private folder]."),
    ] = None,
    blank_patient: Annotated[
        str, typer.Option(help="Id of the one patient whose files have none.")
    ] = "",
    join_slices: Annotated[
        bool,
        typer.Option("--join-slices", help="Join series of one slice each that lie in one stack."),
    ] = False,
    study: options.DicomStudies = None,
    patient: options.DicomPatient = "",
    secret: options.SecretFile = None,
    secret_env: options.SecretVariable = "",
    ca: options.CertificateFile = None,
    plain: options.PlainHttp = False,
) -> None:
    """Turn DICOM into a pseudonymised BIDS hospital; T1, T1CE, T2 and FLAIR are recognised.

    Ends with status 0 where all is fine, 1 where a patient was left out or a series needs a
    decision, 2 where nothing can be used.
    """
    with needs_extra("hospital"):
        from gliofed.cli.screens.intake import show_intake

        server = gliofed.DicomWebServer(tuple(study or ()), patient, secret, secret_env, ca, plain)
        request = gliofed.IngestRequest(
            source, out, private, key, server, blank_patient, join_slices
        )
    with one_line_errors(after="complete patients stay, and the same command takes in the others"):
        with TerminalProgress() as progress:
            result = gliofed.intake(request, progress)
        show_intake(result, out)
    sys.exit(result.status)


def receive(
    folder: Annotated[Path, typer.Argument(help="Folder for the received files.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 11112,
    title: Annotated[str, typer.Option(help="Own application entity title.")] = "GLIOFED",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    peer: Annotated[
        list[str] | None, typer.Option(help="Title that may send; may be repeated.")
    ] = None,
    idle: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds without a sender.")
    ] = None,
) -> None:
    """Receive MR images from a PACS (DICOM C-STORE) into a folder, for `gliofed intake`."""
    with needs_extra("hospital"):
        address = gliofed.ListenAddress(port, title, host, tuple(peer or ()), idle)
    with one_line_errors(after="received files stay, and the same command listens again"):
        typer.echo(f"{title} listens on {host}:{port}; Ctrl-C ends", err=True)
        try:
            with TerminalProgress() as progress:
                count = gliofed.receive(folder, address, progress)
        except KeyboardInterrupt:
            count = len(list(folder.glob("*.dcm")))
        typer.echo(f"{count} instances in {folder}; next: gliofed intake {folder} --out HOSPITAL")


def inspect(
    path: options.DatasetFolder,
    format_id: options.DatasetFormat = "bids",
    site: options.SiteName = "",
    json: Annotated[
        Path | None, typer.Option(help="Write the account to this file as well.")
    ] = None,
) -> None:
    """Show how a data set is read: rows kept, rows dropped and why, what every label becomes.

    Opens no image and changes nothing.
    """
    from gliofed.cli.screens.dataset import show_reading
    from gliofed.runtime.files import write_text

    with one_line_errors():
        reading = gliofed.inspect(path, format_id, site)
        if json is not None:
            text = json_format.dumps(reading.audit.plain(), indent=1, ensure_ascii=False)
            write_text(json, text + "\n")
        show_reading(reading, format_id)


def prepare(
    path: options.DatasetFolder,
    out: Annotated[Path, typer.Option(help="Folder of prepared cases; studies may share one.")],
    study: Annotated[
        Path | None,
        typer.Option(help="Take [grid], [prepare] and [quality] of this study file."),
    ] = None,
    format_id: options.DatasetFormat = "bids",
    site: options.SiteName = "",
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Cases side by side [default: one a core and 4 GiB of memory]."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for a picture of each case [default: <out>/figures/<site>]."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the result of every case as JSON.")
    ] = None,
) -> None:
    """Prepare a hospital's scans for the network, with a quality figure a case.

    It can be interrupted: prepared cases are not prepared again. Ends with status 1 where a case
    failed or was excluded or a file that looks like a scan is not used, 2 where none can be used.
    """
    from gliofed.cli.screens.preparation import case_line, summary

    started = time.monotonic()

    def show(case: CasePreparation) -> None:
        progress.line(case_line(case))

    with one_line_errors(after="the same command resumes", status=2):
        with TerminalProgress() as progress:
            request = gliofed.PrepareOptions(study, format_id, site, processes, figures, json)
            result = gliofed.prepare(path, out, request, progress, show)
        typer.echo(summary(result, time.monotonic() - started))
    if not result.usable:
        sys.exit(2)
    if result.usable < len(result.accounts) or result.unused:
        sys.exit(1)


def phantom(
    root: Annotated[Path, typer.Argument(help="Folder to write the hospitals into.")],
) -> None:
    """Write the demo's synthetic hospitals as BIDS data sets, to try a study on."""
    after = "complete hospitals stay, and the same command writes the others"
    with one_line_errors(after), TerminalProgress() as progress:
        typer.echo(f"wrote {gliofed.phantom(root, progress)}")
