"""What every command shares: a progress bar, errors in one line, a clean stop."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gliofed.errors import GliofedError


class TerminalProgress:
    """A `gliofed.runtime.progress.Progress` as one bar; without a terminal, one line a stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._output = sys.stdout  # the bar replaces it while it is drawn
        self._task: TaskID | None = None
        self._started = time.monotonic()
        self._text = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if kind is None:
            self._close_stage()

    def stage(self, text: str) -> None:
        """Close the stage before and open the next."""
        self._close_stage()
        self._text, self._started = text, time.monotonic()
        self._task = self._bar.add_task(text, total=None, detail="")

    def update(self, done: float, total: float, detail: str) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, detail=detail)

    def note(self, text: str) -> None:
        """A line above the bar that stays."""
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def line(self, text: str) -> None:
        """A line of the result while work goes on: above the bar, or on standard output."""
        if self._console.is_terminal and self._output.isatty():
            self.note(text)
        else:
            print(text, file=self._output, flush=True)

    def _close_stage(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._text}: {seconds:.1f} s", highlight=False)


@contextmanager
def one_line_errors(after: str = "run the same command again", status: int = 1) -> Iterator[None]:
    """End with one line for a known error, and cleanly on Ctrl-C or SIGTERM.

    after: what to do after such a stop. status: exit status of a known error.
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
        text = f"{error.filename}: {error.strerror}; check the path, its permissions and the disk"
        typer.secho(text, fg="red", err=True)
        sys.exit(status)
    except KeyboardInterrupt:
        typer.echo(f"stopped; {after}", err=True)
        sys.exit(130)


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """End with one line where the libraries of an optional extra are not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "gliofed").partition(".")[0] == "gliofed":
            raise
        typer.secho(f"{error.name} is missing; install gliofed[{name}]", fg="red", err=True)
        raise typer.Exit(1) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
