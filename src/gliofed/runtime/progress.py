"""Progress of long work: the one protocol through which it reaches a terminal or a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol


class Progress(Protocol):
    """Receives the progress of long work. Its methods must not raise."""

    def stage(self, text: str) -> None:
        """A new piece of work has begun."""
        ...

    def update(self, done: float, total: float, detail: str) -> None:
        """So much of the present piece is done; `detail` names what is under way."""
        ...

    def note(self, text: str) -> None:
        """Something that the user must see."""
        ...


class NoProgress:
    """A `Progress` that drops everything."""

    def stage(self, text: str) -> None:
        """Drop it."""

    def update(self, done: float, total: float, detail: str) -> None:
        """Drop it."""

    def note(self, text: str) -> None:
        """Drop it."""


NO_PROGRESS: Final = NoProgress()


@dataclass(frozen=True)
class ProgressOfPart:
    """The `Progress` of one part, which counts as one unit of a whole that has `total` of them.

    done: units of the whole that were done before. name: of the part, put before each detail.
    """

    whole: Progress
    done: float
    total: float
    name: str

    def stage(self, text: str) -> None:
        """The part goes on with something else; the whole stays in its stage."""
        self.update(0, 1, text)

    def update(self, done: float, total: float, detail: str) -> None:
        """Report the part's share to the whole."""
        self.whole.update(self.done + done / total, self.total, f"{self.name}: {detail}")

    def note(self, text: str) -> None:
        """Pass it on."""
        self.whole.note(text)


@dataclass
class ProgressCounter:
    """Counts items of which each is done or not: `step` reports one more of `total`."""

    progress: Progress
    total: int
    done: int = 0

    def step(self, detail: str) -> None:
        """One more is done."""
        self.done += 1
        self.progress.update(self.done, max(self.total, 1), detail)
