"""Input and output of scoring: one `CaseResult` a case and model, one `ScoreRow` a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gliofed.types import SEQUENCES, Labels, Person, Sequence

Role = Literal["external", "holdout"]


@dataclass(frozen=True)
class LesionCounts:
    """true: lesions of the expert mask. found: those of them that the prediction touches. false:
    predicted lesions that touch no true one."""

    true: int
    detected: int
    false: int


@dataclass(frozen=True)
class CaseResult:
    """One model's prediction for one case, with the truth.

    model: "federated", "pooled", "alone:<site>", or another model. fold
    names the train/external split; seed the repeat. probabilities: marker id to class
    probabilities in the marker table's order. dice, hd95_mm, volume_ml, volume_true_ml: on the
    scan's own grid; None where the case has no expert mask, and hd95_mm also where either mask is
    empty. person: for strata and confounders; sequences: input of the model; None if unknown.
    agreement: mean Dice between the segmentations of several such models trained with different
    seeds; None with one model.
    """

    model: str
    seed: int
    fold: str
    role: Role
    case: str
    site: str
    patient: str
    labels: Labels
    probabilities: Mapping[str, tuple[float, ...]]
    dice: float | None
    hd95_mm: float | None
    volume_ml: float | None
    volume_true_ml: float | None
    person: Person = field(default_factory=Person)
    sequences: frozenset[Sequence] | None = None
    lesions: LesionCounts | None = None
    agreement: float | None = None


def missing_sequences(result: CaseResult) -> int:
    """Number of sequences that were no input of the model; 0 where they are unknown."""
    return len(SEQUENCES) - len(result.sequences or SEQUENCES)


@dataclass(frozen=True)
class ScoreGroup:
    """The cases of a figure: one model, one role, one site or all, and one stratum (empty: all
    cases)."""

    model: str
    role: Role
    site: str
    stratum: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One figure: a metric of one model on one group of cases, with its 95 % interval.

    site: a hospital, or "all" for every case of the role together. task: "mask", a marker id, or
    "markers" (the mean over markers). n: cases that entered. value, low, high: None with the
    reason in `note` where the figure does not exist. difference: this model's value minus the
    federated model's on the same cases, with its paired interval; None for the federated model.
    seeds: how many repeats the value is the mean of. method: how the interval was made. stratum:
    title of the stratum; empty for all cases.
    """

    model: str
    role: Role
    site: str
    task: str
    metric: str
    n: int
    value: float | None
    low: float | None
    high: float | None
    seeds: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    note: str = ""
    method: str = ""
    stratum: str = ""
