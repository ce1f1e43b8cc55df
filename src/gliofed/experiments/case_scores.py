"""One prediction compared with a case's labels and expert mask, on the mask's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliofed.data.masks import read_mask
from gliofed.data.store import PreparedCase
from gliofed.evaluation.metrics.segmentation import dice, hd95_mm, lesions, volume_ml
from gliofed.evaluation.results import CaseResult, LesionCounts, Role
from gliofed.inference.native_grid import THRESHOLD, mask_on_scan
from gliofed.types import SEQUENCES, Case, Placement, Prediction, Sequence


@dataclass(frozen=True)
class ResultOrigin:
    """Which model made a result, and in which test: see `CaseResult`."""

    model: str
    seed: int
    fold: str
    role: Role


@dataclass(frozen=True)
class SegmentationFigures:
    """Of one predicted mask. None without an expert mask, or with an empty one; hd95_mm also where
    the predicted mask is empty."""

    dice: float | None = None
    hd95_mm: float | None = None
    volume_ml: float | None = None
    volume_true_ml: float | None = None
    lesions: LesionCounts | None = None


def segmentation_figures(
    truth: NDArray[np.bool_], mask: NDArray[np.bool_], affine: NDArray[np.float64]
) -> SegmentationFigures:
    """A predicted mask against an expert mask with a tumour, both (X, Y, Z) of one grid. affine:
    voxel to RAS mm."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return SegmentationFigures(
        dice(truth, mask),
        hd95_mm(truth, mask, spacing),
        volume_ml(mask, spacing),
        volume_ml(truth, spacing),
        lesions(truth, mask, spacing),
    )


def score_case(prediction: Prediction, prepared: PreparedCase, origin: ResultOrigin) -> CaseResult:
    """Compare one prediction with the case's labels and expert mask.

    Without an expert mask, or with an empty one, there is no Dice, and the predicted volume is
    measured on the prepared grid.
    """
    present = frozenset(s for s, has in zip(SEQUENCES, prepared.present, strict=True) if has)
    figures = _against_expert(prediction, prepared)
    return case_result(prepared.case, origin, prediction.markers, figures, present)


def case_result(
    case: Case,
    origin: ResultOrigin,
    probabilities: Mapping[str, tuple[float, ...]],
    figures: SegmentationFigures,
    sequences: frozenset[Sequence] | None,
) -> CaseResult:
    """The result of one case. probabilities: by marker id. sequences: input of the model."""
    return CaseResult(
        model=origin.model,
        seed=origin.seed,
        fold=origin.fold,
        role=origin.role,
        case=case.id,
        site=case.site,
        patient=case.patient,
        labels=case.labels,
        probabilities=probabilities,
        dice=figures.dice,
        hd95_mm=figures.hd95_mm,
        volume_ml=figures.volume_ml,
        volume_true_ml=figures.volume_true_ml,
        person=case.person,
        sequences=sequences,
        lesions=figures.lesions,
    )


def _against_expert(prediction: Prediction, prepared: PreparedCase) -> SegmentationFigures:
    case = prepared.case
    if case.mask is not None and prepared.mask_placement is not None:
        expert = read_mask(case.mask)
        truth = expert.data > 0
        if truth.any():
            x, y, z = truth.shape
            matrix = prepared.mask_placement.matrix
            mask = mask_on_scan(prediction, Placement((x, y, z), expert.affine, matrix))
            return segmentation_figures(truth, mask, expert.affine)
    spacing = np.linalg.norm(prediction.affine[:3, :3], axis=0)
    return SegmentationFigures(volume_ml=volume_ml(prediction.probability >= THRESHOLD, spacing))
