"""`gliofed`: the command."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from gliofed.cli import cases, consortium, pacs
from gliofed.cli.audit import audit
from gliofed.cli.extra import extra
from gliofed.cli.model import model
from gliofed.cli.radiomics import radiomics
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.version import __version__


class OutputFormat(enum.StrEnum):
    """How a table is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


app = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hospitals train one 3D glioma network together; no image leaves the building.\n\n"
    + RESEARCH_USE_ONLY,
)
app.add_typer(audit, name="audit")
app.add_typer(radiomics, name="radiomics")
app.add_typer(model, name="model")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, models and page.")] = Path("demo"),
) -> None:
    """See the whole thing work: six synthetic hospitals, no data, no GPU, a few minutes."""
    from gliofed.cli import run as verb

    verb.demo(out)


@app.command()
def check(
    path: Annotated[
        Path, typer.Argument(help="A hospital, a folder of them, an image or a table.")
    ],
    json: Annotated[Path | None, typer.Option(help="Write the findings as JSON.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Write an HTML page with thumbnails of every case.")
    ] = None,
) -> None:
    """Check images, masks and tables before they are trusted; each fault with its cure.

    Ends with status 1 where an error was found. Reads only; damaged files can do no harm.
    """
    from gliofed.cli import check as verb

    verb.check(path, json, sheet)


@app.command()
def prepare(
    path: Annotated[Path, typer.Argument(help="The data set's folder.")],
    out: Annotated[Path, typer.Option(help="Folder of prepared cases; studies may share one.")],
    study: Annotated[
        Path | None,
        typer.Option(help="Take [grid], [prepare] and [quality] of this study file."),
    ] = None,
    layout: Annotated[
        str, typer.Option("--format", help="Its layout: bids, ucsf_pdgm, upenn_gbm, tcga, ...")
    ] = "bids",
    site: Annotated[
        str, typer.Option(help="What to call the hospital [default: the folder's name].")
    ] = "",
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Cases side by side [default: one a core and 4 GiB of memory]."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for a picture of each case [default: <out>/figures/<site>]."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write every case's account as JSON.")] = None,
) -> None:
    """Prepare a hospital's scans for the network, a figure a case; what fails is set aside.

    Interrupt it when you like: what is in the folder is not made again. Ends with status 1 where a
    case failed or was set aside, 2 where none can be used.
    """
    from gliofed.cli import prepare as verb

    verb.prepare(path, out, study, layout, site, processes, figures, json)


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: runs/<study file's name>].")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <out>/store].")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Models trained side by side [default: one a core; 1 with an accelerator].",
        ),
    ] = None,
    statements: Annotated[
        Path | None,
        typer.Option(help="What the authors say themselves (TOML), for checklists and card."),
    ] = None,
) -> None:
    """Run a study: federated, pooled and single-site models, tested on held-out hospitals.

    Interrupt it when you like: the same command goes on from the last committed round.
    """
    from gliofed.cli import run as verb

    verb.run(study, out or Path("runs") / study.stem, store, processes, statements)


@app.command()
def score(
    predictions: Annotated[
        list[Path], typer.Argument(help="Tables of predictions (CSV), one or more models.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for scores.csv and scores.json.")],
    reference: Annotated[
        str,
        typer.Option(
            help="Model that others are compared with [default: federated, or the first]."
        ),
    ] = "",
    bootstrap: Annotated[int, typer.Option(min=100, help="Resamples of patients.")] = 2000,
    study: Annotated[
        Path | None, typer.Option(help="Take [calibration] of this study file.")
    ] = None,
) -> None:
    """Score any model's predictions, gliofed's own or a peer's, every figure with its interval.

    Research use only. Not a medical device.
    """
    from gliofed.cli import score as verb

    verb.score(predictions, out, reference, bootstrap, study)


@app.command()
def overlap(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of prepared cases [default: runs/<study file's name>/store]."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Also name this hospital's own patients that are shared.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the patients that hospitals share, by id and by image; trains nothing."""
    from gliofed.cli import overlap as verb

    verb.overlap(study, store, site, json)


@app.command()
def cohort(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    form: Annotated[
        OutputFormat, typer.Option("--format", help="How to print it.")
    ] = OutputFormat.TABLE,
) -> None:
    """Count markers, sex, age, scanners and sequences by hospital, counts from 1 to 10 hidden."""
    from gliofed.cli import cohort as verb

    verb.cohort(study, form.value)


@app.command()
def phantom(
    root: Annotated[Path, typer.Argument(help="Folder to write the hospitals into.")],
) -> None:
    """Write the demo's synthetic hospitals as BIDS data sets, to try your own study on."""
    from gliofed.cli import verbs

    verbs.phantom(root)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="The data set's folder.")],
    layout: Annotated[
        str, typer.Option("--format", help="Its layout: bids, ucsf_pdgm, upenn_gbm, tcga, ...")
    ] = "bids",
    site: Annotated[
        str, typer.Option(help="What to call the hospital [default: the folder's name].")
    ] = "",
    json: Annotated[
        Path | None, typer.Option(help="Write the account to this file as well.")
    ] = None,
) -> None:
    """See how a data set is read: every row kept or dropped and why, every label's meaning.

    Opens no image and changes nothing.
    """
    from gliofed.cli import verbs

    verbs.inspect(path, layout, site, json)


@app.command()
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
        Path | None, typer.Option(help="The pseudonyms' key [default: key.txt, private].")
    ] = None,
    study: pacs.Studies = None,
    patient: pacs.Patient = "",
    secret: pacs.SecretFile = None,
    secret_env: pacs.SecretName = "",
    ca: pacs.Authority = None,
    plain: pacs.Plain = False,
) -> None:
    """Turn DICOM into a pseudonymised BIDS hospital: T1, T1CE, T2 and FLAIR recognised.

    Ends with status 0: all fine; 1: something was set aside or needs a decision; 2: nothing of use.
    """
    with extra("hospital"):
        from gliofed.cli import intake as verb
        from gliofed.dicom.dicomweb import DicomWebServer
        from gliofed.ingest.intake import IngestRequest

    asked = DicomWebServer(tuple(study or ()), patient, secret, secret_env, ca, plain)
    verb.intake(IngestRequest(source, out, private, key, asked))


@app.command()
def receive(
    folder: Annotated[Path, typer.Argument(help="Folder for what comes.")],
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
    """Let a PACS send MR images (DICOM C-STORE) into a folder, for `gliofed intake`."""
    with extra("hospital"):
        from gliofed.cli import intake as verb
        from gliofed.dicom.storescp import ListenAddress

    verb.receive(folder, ListenAddress(port, title, host, tuple(peer or ()), idle))


@app.command()
def approve(
    study: Annotated[Path | None, typer.Argument(help="The study file (TOML).")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File for the approval, or the approvals folder of a kit."),
    ] = None,
    who: Annotated[str, typer.Option(help="Who approves [default: the login's name].")] = "",
    key: Annotated[
        Path | None, typer.Option(help="Sign with this private key of an approver.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="The site's policy; the approval ends where it changes.")
    ] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make an approver's key in this file, and nothing else.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Read what a study runs and sends, and agree to it on behalf of a hospital."""
    from gliofed.cli import approve as verb

    verb.approve(study, out, who, key, policy, new_key, yes)


cases.add_to(app)
consortium.add_to(app)


if __name__ == "__main__":
    app()
