"""Each verb with a terminal around it: a bar, plain errors, a table at the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer

from gliofed import api
from gliofed.cli.show import Terminal, show_outcome
from gliofed.errors import GliofedError


def demo(out: Path) -> None:
    """`gliofed demo`."""
    with plain_ends():
        with Terminal() as terminal:
            outcome = api.demo(out, terminal)
        show_outcome(outcome)


def run(study: Path, out: Path, store: Path | None) -> None:
    """`gliofed run`."""
    with plain_ends():
        with Terminal() as terminal:
            outcome = api.run(study, out, store, terminal)
        show_outcome(outcome)


def phantom(root: Path) -> None:
    """`gliofed phantom`."""
    with plain_ends(), Terminal() as terminal:
        typer.echo(f"wrote {api.phantom(root, terminal)}")


@contextmanager
def plain_ends() -> Iterator[None]:
    """One line for a known error, and a clean stop on Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except GliofedError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last committed round", err=True)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
