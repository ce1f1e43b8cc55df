"""What is said where the libraries of an extra are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def extra(name: str) -> Iterator[None]:
    """One line where the libraries of an extra are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "gliofed").partition(".")[0] == "gliofed":
            raise
        typer.secho(f"{error.name} is missing; install gliofed[{name}]", fg="red", err=True)
        raise typer.Exit(1) from None
