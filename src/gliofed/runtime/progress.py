"""The protocol by which long work reports its progress to a terminal or a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol


class Progress(Protocol):
    """Receives the progress of long work. Its methods must not raise."""

    def stage(self, text: str) -> None:
        """A new stage of work has begun."""
        ...

    def update(self, done: float, total: float, detail: str) -> None:
        """`done` of `total` units of the stage are done; `detail` names the present work."""
        ...

    def note(self, text: str) -> None:
        """A message for the user."""
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
    """The `Progress` of one part, which counts as one unit of `total` in its parent.

    done: units of the parent that were done before. name: of the part, put before each detail.
    """

    parent: Progress
    done: float
    total: float
    name: str

    def stage(self, text: str) -> None:
        """A new stage of the part; the parent stays in its stage."""
        self.update(0, 1, text)

    def update(self, done: float, total: float, detail: str) -> None:
        """Report the part's share to the parent."""
        self.parent.update(self.done + done / total, self.total, f"{self.name}: {detail}")

    def note(self, text: str) -> None:
        """Pass it to the parent."""
        self.parent.note(text)


@dataclass
class ProgressCounter:
    """Counts finished items: each `step` reports one more of `total`."""

    progress: Progress
    total: int
    done: int = 0

    def step(self, detail: str) -> None:
        """One more is done."""
        self.done += 1
        self.progress.update(self.done, max(self.total, 1), detail)
