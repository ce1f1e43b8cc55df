"""The content of the results page of a study, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.evaluation import CalibrationEvaluation
from gliofed.calibration.model_agreement import AgreementRow
from gliofed.evaluation.claims import Evidence
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.reporting.checklists.checklist import AnsweredChecklist
from gliofed.types import RoundPoint

__all__ = [
    "ExamplePlane",
    "RoundPoint",
    "ScoredPredictions",
    "SegmentationExample",
    "StudyContent",
    "TrainingHistory",
]


@dataclass(frozen=True)
class TrainingHistory:
    """The training history of one model of one seed and fold."""

    model: str
    seed: int
    fold: str
    points: tuple[RoundPoint, ...]
    epochs: int = 0

    def position(self, point: RoundPoint) -> int:
        """Where a point lies on the axis of a curve: its epoch, or its round without epochs."""
        done = point.round + 1
        rounds = self.points[-1].round + 1
        return math.ceil(self.epochs * done / rounds) if self.epochs else done


ExamplePlane = tuple[str, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], float]
"""Name, grey image in [0, 1], expert mask, predicted mask, ratio of height to width."""


@dataclass(frozen=True)
class SegmentationExample:
    """One case's segmentations over FLAIR, as three orthogonal slices through the tumour.

    planes: 2D arrays, turned for radiological display (patient's right on the image's left).
    """

    rank: str
    case: str
    model: str
    dice: float
    planes: tuple[ExamplePlane, ...]


@dataclass(frozen=True)
class ScoredPredictions:
    """Everything that predictions alone give; pages of a run and of imported predictions share it.

    reference: the model of the evidence and the calibration; other models are compared with it.
    rows: including those of calibrated predictions. results: without calibrated predictions.
    evidence, calibration: None if they were not computed.
    mask_agreement: whether agreeing models are right; empty with one seed.
    """

    rows: tuple[ScoreRow, ...]
    results: tuple[CaseResult, ...]
    evidence: Evidence | None = None
    calibration: CalibrationEvaluation | None = None
    reference: str = "federated"
    mask_agreement: tuple[AgreementRow, ...] = ()


@dataclass(frozen=True)
class StudyContent:
    """Everything on the page.

    notes: plain sentences that a reader must see (overlap dropped, sequences missing, refused
    updates). facts: provenance as (name, value) rows. cohort: per hospital counts, the first row
    being the header. excluded: (case, hospital, why) of prepared cases that are not in the study.
    checklists: reporting checklists with the answers from the run.
    """

    study: str
    synthetic: bool
    scored: ScoredPredictions
    curves: tuple[TrainingHistory, ...]
    examples: tuple[SegmentationExample, ...]
    cohort: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    excluded: tuple[tuple[str, str, str], ...] = ()
    checklists: tuple[AnsweredChecklist, ...] = ()
