"""Commits on disk: a run killed at any moment continues from the last one.

    <folder>/round-00007.safetensors     weights and the strategy's state; history and counts as a
                                         note

Files are replaced atomically. The last two are kept.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from gliofed.errors import CheckpointError, DataError, UpdateError
from gliofed.federated.label_counts import NO_CASES, LabelCounts, untrained_markers
from gliofed.federated.messages import label_counts_of
from gliofed.federated.named_tensors import join_tensors, split_tensors
from gliofed.federated.schedule import Schedule
from gliofed.federated.update_bound import BoundState
from gliofed.federated.wire import load, save
from gliofed.study import LossConfig
from gliofed.types import RoundPoint, TensorsByKind


class _OfRun(Protocol):
    @property
    def run(self) -> str: ...
    @property
    def rounds(self) -> int: ...


_Record = TypeVar("_Record", bound=_OfRun)


@dataclass(frozen=True)
class CommittedRound:
    """The state after `rounds` rounds (0: as initialised).

    weights: of the model. state: what the strategy has beside them, by kind. schedule: None before
    the sites' cases were counted. counts: site to its label counts. bound: of updates.
    """

    run: str
    rounds: int
    weights: Mapping[str, Tensor]
    history: tuple[RoundPoint, ...]
    state: TensorsByKind = field(default_factory=dict)
    schedule: Schedule | None = None
    counts: Mapping[str, LabelCounts] = field(default_factory=dict)
    bound: BoundState = field(default_factory=BoundState)

    @property
    def complete(self) -> bool:
        """Whether all rounds of the run were made."""
        return self.schedule is not None and self.rounds >= self.schedule.rounds

    def untrained(self, loss: LossConfig) -> tuple[str, ...]:
        """The markers that the run does not train, by its sites' counts; none before these."""
        if not self.counts:
            return ()
        return untrained_markers(loss, sum(self.counts.values(), NO_CASES).classes)


def commit(folder: Path, state: CommittedRound) -> None:
    """Write a state to the disk, then delete all but the last two states."""
    note = {
        "run": state.run,
        "rounds": state.rounds,
        "history": [dataclasses.asdict(p) for p in state.history],
        "schedule": state.schedule and dataclasses.asdict(state.schedule),
        "counts": {site: dataclasses.asdict(own) for site, own in state.counts.items()},
        "bound": dataclasses.asdict(state.bound),
    }
    save(committed_file(folder, state.rounds), join_tensors(state.weights, state.state), note)
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
        state = _committed_round(tensors, note)
    except (UpdateError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{files[-1]}: damaged ({error}); delete this file to continue from the round before"
        ) from None
    if state.run != run:
        raise CheckpointError(
            f"{folder}: holds rounds of another study or version, or of scans or labels that have "
            "changed since; choose another folder, or delete this one to start again"
        )
    return state


def _committed_round(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> CommittedRound:
    weights, by_kind = split_tensors(tensors)
    return CommittedRound(
        run=note["run"],
        rounds=note["rounds"],
        weights=weights,
        history=tuple(RoundPoint(**p) for p in note["history"]),
        state=by_kind,
        schedule=Schedule(**note["schedule"]) if note["schedule"] else None,
        counts={site: label_counts_of(own) for site, own in note["counts"].items()},
        bound=BoundState(**note.get("bound", {})),
    )


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
