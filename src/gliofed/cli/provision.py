"""`gliofed provision`: kits made, and what to do with each."""

from __future__ import annotations

from pathlib import Path

import typer

import gliofed
from gliofed.cli.verbs import plain_ends


def provision(federation: Path, out: Path) -> None:
    """Make the kits, then say where they are."""
    with plain_ends(after="nothing was made; the same command starts anew"):
        done = gliofed.provision(federation, out)
        for name in done.made:
            typer.echo(f"made {done.out / name}")
        for name in done.kept:
            typer.echo(f"kept {name}, made before")
        typer.echo(
            f"Hand each kit over on its own, by a way that only its receiver can read. "
            f"Keep {done.out / 'authority'} to yourself: whoever has it can join as anyone."
        )
