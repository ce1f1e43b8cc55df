"""Committed rounds on disk: a run killed at any moment goes on from the last one.

    <folder>/round-00007.safetensors     merged weights, and the history so far as a note

Each file is written whole or not at all; the last two are kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from gliofed.errors import CheckpointError, DataError, UpdateError
from gliofed.federated.aggregation.moments import weights_of
from gliofed.federated.messages import load, save
from gliofed.types import RoundPoint


class _OfRun(Protocol):
    @property
    def run(self) -> str: ...
    @property
    def rounds(self) -> int: ...


_Record = TypeVar("_Record", bound=_OfRun)


@dataclass(frozen=True)
class CommittedRound:
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


def commit(folder: Path, state: CommittedRound) -> None:
    """Put a state on the disk for good, then drop all but the last two."""
    note = {"run": state.run, "rounds": state.rounds,
            "history": [dataclasses.asdict(p) for p in state.history]}  # fmt: skip
    save(committed_file(folder, state.rounds), state.weights, note)
    for old in sorted(folder.glob("round-*.safetensors"))[:-2]:
        old.unlink()


def last_committed(folder: Path, run: str) -> CommittedRound | None:
    """The newest state, or None before the first.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    files = sorted(folder.glob("round-*.safetensors"))
    if not files:
        return None
    try:
        weights, note = load(files[-1])
        history = tuple(RoundPoint(**p) for p in note["history"])
        state = CommittedRound(note["run"], note["rounds"], weights, history)
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


def last_record(
    path: Path, run: str, rounds: int, read: Callable[[Any], _Record], what: str, doing: str
) -> _Record | None:
    """The JSON record in `path` of the model after `rounds` rounds, or None before it.

    read: makes it of the plain values. what, doing: as "calibration" and "calibrate", in errors.
    Raises CheckpointError where it is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        found = read(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); delete this file to {doing} the model again"
        ) from None
    if found.run != run:
        raise CheckpointError(
            f"{path}: is the {what} of another study, version, or of other scans or labels; choose "
            f"another folder, or delete this file to {doing} again"
        )
    return found if found.rounds == rounds else None


def committed_file(folder: Path, rounds: int) -> Path:
    """Where the state after so many rounds lies, while it is one of the last two."""
    return folder / f"round-{rounds:05d}.safetensors"
