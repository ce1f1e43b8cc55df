"""Committed rounds on disk: a run killed at any moment continues from the last one.

    <folder>/round-00007.safetensors     merged weights and moments; the history so far as a note

Files are replaced atomically. The last two are kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from gliofed.errors import CheckpointError, DataError, UpdateError
from gliofed.federated.aggregation.moments import join_tensors, split_tensors
from gliofed.federated.wire import load, save
from gliofed.types import OptimiserMoments, RoundPoint


class _OfRun(Protocol):
    @property
    def run(self) -> str: ...
    @property
    def rounds(self) -> int: ...


_Record = TypeVar("_Record", bound=_OfRun)


@dataclass(frozen=True)
class CommittedRound:
    """The state after `rounds` rounds (0: as initialised).

    weights: of the model. moments: of the optimiser, where sites share them, else None.
    """

    run: str
    rounds: int
    weights: Mapping[str, Tensor]
    history: tuple[RoundPoint, ...]
    moments: OptimiserMoments | None = None


def commit(folder: Path, state: CommittedRound) -> None:
    """Write a state to the disk, then delete all but the last two states."""
    history = [dataclasses.asdict(p) for p in state.history]
    note = {"run": state.run, "rounds": state.rounds, "history": history}
    tensors = join_tensors(state.weights, state.moments)
    save(committed_file(folder, state.rounds), tensors, note)
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
        tensors, note = load(files[-1])
        weights, moments = split_tensors(tensors)
        history = tuple(RoundPoint(**p) for p in note["history"])
        state = CommittedRound(note["run"], note["rounds"], weights, history, moments)
    except (UpdateError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{files[-1]}: damaged ({error}); delete this file to continue from the round before"
        ) from None
    if state.run != run:
        raise CheckpointError(
            f"{folder}: holds rounds of another study or version, or of scans or labels that have "
            "changed since; choose another folder, or delete this one to start again"
        )
    return state


@dataclass(frozen=True)
class RecordFormat(Generic[_Record]):
    """A kind of JSON record next to the rounds.

    read: builds the record from plain JSON values. noun, action: for error messages, such as
    "calibration" and "calibrate".
    """

    read: Callable[[Any], _Record]
    noun: str
    action: str


def last_record(
    path: Path, run: str, rounds: int, record_format: RecordFormat[_Record]
) -> _Record | None:
    """The JSON record in `path` of the model after `rounds` rounds, or None before it.

    Raises CheckpointError where it is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    action = record_format.action
    try:
        record = record_format.read(json.loads(path.read_text()))
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); delete this file to {action} the model again"
        ) from None
    if record.run != run:
        raise CheckpointError(
            f"{path}: is the {record_format.noun} of another study or version, or of other scans "
            f"or labels; choose another folder, or delete this file to {action} again"
        )
    return record if record.rounds == rounds else None


def committed_file(folder: Path, rounds: int) -> Path:
    """Path of the state after `rounds` rounds. The file exists for the last two states only."""
    return folder / f"round-{rounds:05d}.safetensors"
