"""Each verb with a terminal around it: a bar, plain errors, a table at the end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import typer

import gliofed
from gliofed.cli.inspection import show_reading
from gliofed.cli.show import TerminalProgress
from gliofed.data.formats.registry import format_of
from gliofed.errors import GliofedError
from gliofed.runtime.files import write_text

WHOLE: Final = "hospitals that are whole stay, and the same command writes the others"


def phantom(root: Path) -> None:
    """`gliofed phantom`."""
    with plain_ends(after=WHOLE), TerminalProgress() as terminal:
        typer.echo(f"wrote {gliofed.phantom(root, terminal)}")


def inspect(path: Path, format_id: str, site: str, out: Path | None) -> None:
    """`gliofed inspect`."""
    with plain_ends():
        reading = gliofed.inspect(path, format_id, site)
        if out is not None:
            write_text(out, json.dumps(reading.audit.plain(), indent=1, ensure_ascii=False) + "\n")
        show_reading(format_of(format_id), reading)


@contextmanager
def plain_ends(after: str = "run the same command again", status: int = 1) -> Iterator[None]:
    """One line for a known error or a path that fails, and a clean stop on Ctrl-C or SIGTERM.

    after: what to do after such a stop; true of the verb. status: of a known error.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except GliofedError as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(status)
    except OSError as error:
        if error.filename is None:
            raise
        text = f"{error.filename}: {error.strerror}; check the path, its rights and the disk"
        typer.secho(text, fg="red", err=True)
        sys.exit(status)
    except KeyboardInterrupt:
        typer.echo(f"stopped; {after}", err=True)
        sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
