"""Committed rounds on disk: a run killed at any moment goes on from the last one.

    <folder>/round-00007.safetensors     merged weights, and the history so far as a note

Each file is written whole or not at all; the last two are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gliofed.errors import CheckpointError, UpdateError
from gliofed.fed.moments import weights_of
from gliofed.fed.wire import load, save
from gliofed.types import RoundPoint


@dataclass(frozen=True)
class Committed:
    """The state after `rounds` rounds (0: as initialised).

    weights: of the model, and the moments where sites share them (`fed.moments`).
    """

    run: str
    rounds: int
    weights: Mapping[str, Tensor]
    history: tuple[RoundPoint, ...]

    @property
    def model(self) -> dict[str, Tensor]:
        """The weights without moments."""
        return weights_of(self.weights)


def commit(folder: Path, state: Committed) -> None:
    """Put a state on the disk for good, then drop all but the last two."""
    note = {"run": state.run, "rounds": state.rounds,
            "history": [dataclasses.asdict(p) for p in state.history]}  # fmt: skip
    save(committed_file(folder, state.rounds), state.weights, note)
    for old in sorted(folder.glob("round-*.safetensors"))[:-2]:
        old.unlink()


def last_committed(folder: Path, run: str) -> Committed | None:
    """The newest state, or None before the first.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    files = sorted(folder.glob("round-*.safetensors"))
    if not files:
        return None
    try:
        weights, note = load(files[-1])
        history = tuple(RoundPoint(**p) for p in note["history"])
        state = Committed(note["run"], note["rounds"], weights, history)
    except (UpdateError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{files[-1]}: damaged ({error}); delete this file to go on from the round before"
        ) from None
    if state.run != run:
        raise CheckpointError(
            f"{folder}: holds rounds of another study, version, or of scans or labels that have "
            "changed since; choose another folder, or delete this one to start anew"
        )
    return state


def committed_file(folder: Path, rounds: int) -> Path:
    """Where the state after so many rounds lies, while it is one of the last two."""
    return folder / f"round-{rounds:05d}.safetensors"
