"""A model's answer for one case, as values: `gliofed.reporting.case` makes words of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.calibration.segmentation_uncertainty import SegmentationUncertainty
from gliofed.study import QualityConfig
from gliofed.types import Prediction, PreparationMeasures, Sequence


@dataclass(frozen=True)
class CalibrationUsed:
    """Which calibration of a model was applied to a case.

    max_missing: how many sequences its cases lacked at most. case_missing: how many this case
    lacks. counts: calibration cases, by marker id and class.
    """

    max_missing: int
    case_missing: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered. id: digest. name: of its study; run, rounds: of its training.

    synthetic: trained on phantoms. calibration: None without one.
    """

    id: str
    name: str
    run: str
    rounds: int
    synthetic: bool
    calibration: CalibrationUsed | None


@dataclass(frozen=True)
class MarkerOcclusion:
    """How the network's probability of one class of one marker falls where a part is hidden.

    class_name: the class that is explained. probability: before calibration; not finite where the
    network's is not, and then all else is empty. regions: float32 (X, Y, Z) on the prepared grid,
    the mean fall over the blocks about a voxel, 0 outside the brain; None without a block, or
    where a fall is not finite. sequences: the fall without each whole sequence, which may not be
    finite; empty where at most one sequence is present.
    """

    marker: str
    class_name: str
    probability: float
    regions: NDArray[np.float32] | None
    sequences: Mapping[Sequence, float]


@dataclass(frozen=True)
class OcclusionResult:
    """block_mm: side of the blocks hidden. blocks, sequences: how many were, one at a time."""

    block_mm: float
    blocks: int
    sequences: int
    markers: tuple[MarkerOcclusion, ...]


@dataclass(frozen=True)
class CaseAnswer:
    """One case. Arrays are (X, Y, Z) on the prepared grid, whose affine is voxel to RAS mm.

    prediction: of the network, before calibration. segmentation: its spread over the passes, as
    scanned and, for some models, mirrored; volumes in ml of the space. volume_scale: ml on the
    patient's scan for each ml in the space. dropout_samples: behind the markers' intervals.
    occlusion: None where it was not computed. measures, limits: what the preparation's quality
    control measured and allows. missing: sequences that the case does not have.
    """

    case: str
    model: ModelIdentity
    space: Literal["mni152", "scanner"]
    prediction: Prediction
    segmentation: SegmentationUncertainty
    volume_scale: float
    markers: tuple[MarkerAnswer, ...]
    dropout_samples: int
    integrated: IntegratedType
    occlusion: OcclusionResult | None
    measures: PreparationMeasures
    limits: QualityConfig
    missing: tuple[Sequence, ...]
    day: date
