"""`gliofed`: the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliofed import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hospitals train one 3D glioma network together; no image leaves the building.\n\n"
    "Research use only. Not a medical device.",
)


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
    from gliofed.cli import verbs

    verbs.demo(out)


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
def run(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run [default: runs/<study file's name>].")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <out>/store].")
    ] = None,
) -> None:
    """Run a study: federated, pooled and single-site models, tested on held-out hospitals.

    Interrupt it when you like: the same command goes on from the last committed round.
    """
    from gliofed.cli import verbs

    verbs.run(study, out or Path("runs") / study.stem, store)


@app.command()
def phantom(
    root: Annotated[Path, typer.Argument(help="Folder to write the hospitals into.")],
) -> None:
    """Write the demo's synthetic hospitals as BIDS data sets, to try your own study on."""
    from gliofed.cli import verbs

    verbs.phantom(root)


if __name__ == "__main__":
    app()
