"""Commands for kits that were handed over: renew, revoke, install; and for the runs in a kit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gliofed
from gliofed.cli.terminal import needs_extra, one_line_errors

kit = typer.Typer(no_args_is_help=True, help="Certificates of kits, and the runs stored in a kit.")

Out = Annotated[Path, typer.Option(help="The folder that gliofed provision made.")]
Name = Annotated[str, typer.Argument(help="Name of the kit: a site, lead, or server.")]


@kit.command()
def renew(
    name: Name,
    out: Out,
    days: Annotated[int, typer.Option(help="Days that it is valid.", min=1)] = 360,
) -> None:
    """Sign the certificate of a kit anew, for the same key; the old one is valid until its end."""
    with one_line_errors(after="no certificate was made"), needs_extra("federation"):
        path = gliofed.renew(out, name, days)
        typer.echo(
            f"wrote {path}, which is not secret; its receiver runs: gliofed kit install "
            f"{path.name} --kit KIT, and then starts the kit's command again"
        )


@kit.command()
def revoke(name: Name, out: Out) -> None:
    """Revoke the certificates of a site or the lead; the server refuses them from then on."""
    with one_line_errors(after="nothing was revoked"), needs_extra("federation"):
        path = gliofed.revoke(out, name)
        typer.echo(
            f"wrote {path}; whoever runs the server runs: gliofed kit install {path.name} --kit "
            f"KIT. The running server reads it at once. gliofed provision makes {name} a new kit"
        )


@kit.command()
def install(
    file: Annotated[Path, typer.Argument(help="A renewed certificate, or a list of revoked ones.")],
    kit: Annotated[Path, typer.Option(help="The kit.")],
) -> None:
    """Put a renewed certificate, or into a server's kit a list of revoked ones, in its place."""
    with one_line_errors(after="the kit is unchanged"), needs_extra("federation"):
        found = gliofed.install(kit, file)
        typer.echo(f"installed in {found.root}")


@kit.command()
def runs(
    kit: Annotated[Path, typer.Argument(help="A kit.")],
    delete: Annotated[
        list[str] | None, typer.Option(help="Delete this run; it may be repeated.")
    ] = None,
) -> None:
    """List the runs that a kit stores, with the size of each on the disk, or delete some."""
    with one_line_errors(after="nothing more was deleted"), needs_extra("federation"):
        for run in delete or ():
            gliofed.delete_run(kit, run)
            typer.echo(f"deleted {run}")
        for stored in gliofed.stored_runs(kit):
            typer.echo(
                f"{stored.run}  {stored.changed:%Y-%m-%d %H:%M} UTC  {stored.bytes / 1e6:,.0f} MB  "
                f"{stored.text}"
            )
