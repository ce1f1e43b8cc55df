"""The command's verbs of a federation between hospitals; their libraries are an extra."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliofed.cli.extra import extra

federation = typer.Typer(no_args_is_help=True, help="A whole federation on this machine.")


def add_to(app: typer.Typer) -> None:
    """Add them to the command."""
    for verb in (provision, serve, join, start, status, stop, withdraw):
        app.command()(verb)
    app.add_typer(federation, name="federation")


def provision(
    federation: Annotated[Path, typer.Argument(help="The federation file (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder of the kits.")],
) -> None:
    """Make a start-up kit for the server, the lead and each hospital of a federation.

    Run it again with more sites in the file: only theirs are made, for the same federation.
    """
    with extra("federation"):
        from gliofed.cli import provision as verb

        verb.provision(federation, out)


def serve(kit: Annotated[Path, typer.Argument(help="The server's kit.")]) -> None:
    """Run a federation's server, in the foreground, until interrupted."""
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.serve(kit)


def join(
    kit: Annotated[Path, typer.Argument(help="This hospital's kit.")],
    data: Annotated[Path, typer.Option(help="Folder of the hospital's data set.")],
    store: Annotated[Path, typer.Option(help="Folder of its prepared cases.")],
    format: Annotated[str, typer.Option(help="Layout of the data set.")] = "bids",
    study: Annotated[
        Path | None, typer.Option(help="The study, where the kit proposes none.")
    ] = None,
    approval: Annotated[
        Path | None, typer.Option(help="An approval of this study, signed elsewhere.")
    ] = None,
    who: Annotated[str, typer.Option(help="Who approves [default: the login's name].")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Join a federation: check the data, read what a study does with it, agree, and take part.

    Runs in the foreground until interrupted; nothing dials in to the hospital.
    """
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.join(verb.JoinOptions(kit, data, store, format, study, approval, who, yes))


def start(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    kit: Annotated[Path, typer.Option(help="The lead's kit.")],
    segment: Annotated[int, typer.Option(help="Rounds of one job.", min=1)] = 20,
) -> None:
    """See a study through at the sites of a federation, from its last committed round.

    Ends with status 1 where it could not be completed. The same command goes on later.
    """
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.start(study, kit, segment)


def status(
    kit: Annotated[Path, typer.Argument(help="The lead's or the server's kit.")],
    watch: Annotated[bool, typer.Option("--watch", help="Show it until the run is over.")] = False,
) -> None:
    """Show how a study stands: rounds, sites, seconds, bytes, losses, and who is missing."""
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.status(kit, watch)


def stop(kit: Annotated[Path, typer.Argument(help="The lead's kit.")]) -> None:
    """Stop a study after its present round; `gliofed start` goes on from there."""
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.stop(kit)


def withdraw(
    site: Annotated[str, typer.Argument(help="The site's name.")],
    kit: Annotated[Path, typer.Option(help="The lead's kit.")],
) -> None:
    """Ask a site no more, from the next round on."""
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.withdraw(site, kit)


@federation.command("try")
def try_out(
    out: Annotated[Path, typer.Option(help="Folder of everything.")] = Path("federation"),
) -> None:
    """Try it: a server, a lead and four phantom hospitals, each a process of its own, over TLS.

    Interrupt it when you like: the same command goes on from the last committed round.
    """
    with extra("federation"):
        from gliofed.cli import federation as verb

        verb.try_out(out)
