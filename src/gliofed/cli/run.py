"""`gliofed run` and `gliofed demo`: the verbs that train here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import gliofed
from gliofed.cli.show import TerminalProgress, show_outcome
from gliofed.cli.verbs import plain_ends
from gliofed.runtime.device import processes_at_once

ROUNDS: Final = "the same command goes on from the last committed round"


def demo(out: Path) -> None:
    """`gliofed demo`."""
    with plain_ends(after=ROUNDS):
        with TerminalProgress() as terminal:
            outcome = gliofed.demo(out, terminal, processes_at_once())
        show_outcome(outcome)


def run(
    study: Path, out: Path, store: Path | None, processes: int | None, statements: Path | None
) -> None:
    """`gliofed run`."""
    with plain_ends(after=ROUNDS):
        with TerminalProgress() as terminal:
            at_once = processes or processes_at_once()
            outcome = gliofed.run(study, out, store, terminal, at_once, statements)
        show_outcome(outcome)
