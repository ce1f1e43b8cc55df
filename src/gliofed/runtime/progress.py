"""How long work tells what it is doing; the terminal and the tests each listen in their way."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of progress; must not raise."""

    def stage(self, text: str) -> None:
        """A new piece of work has begun."""
        ...

    def progress(self, done: float, total: float, detail: str) -> None:
        """How far the present piece is."""
        ...

    def note(self, text: str) -> None:
        """Something that must be seen."""
        ...


class NoProgress:
    """Listens to nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def progress(self, done: float, total: float, detail: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
