"""A model's prediction for one case, as values; `gliofed.reporting.case` makes the texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.calibration.segmentation_uncertainty import SegmentationUncertainty
from gliofed.study import BrainMaskSource, QualityConfig
from gliofed.types import Person, Prediction, PreparationMeasures, Sequence


@dataclass(frozen=True)
class CalibrationUsed:
    """Which calibration of a model was applied to a case.

    max_missing: largest number of missing sequences in its cases. case_missing: number missing in
    this case. counts: calibration cases, by marker id and class.
    """

    max_missing: int
    case_missing: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class ModelIdentity:
    """The model of a prediction. id: digest. name: of its study; run, rounds: of its training.

    synthetic: trained on phantoms. calibration: None without one. brain: how the brain of its
    training cases was found.
    """

    id: str
    name: str
    run: str
    rounds: int
    synthetic: bool
    calibration: CalibrationUsed | None
    brain: BrainMaskSource = "auto"


@dataclass(frozen=True)
class MarkerOcclusion:
    """Fall of the network's probability of one class of one marker under occlusion.

    class_name: the class that is explained. probability: before calibration; if it is not finite,
    everything else is empty. regions: float32 (X, Y, Z) on the prepared grid, the mean fall over
    the blocks around a voxel, 0 outside the brain; None without a block, or if a fall is not
    finite. sequences: the fall without each sequence, which may not be finite; empty with at most
    one sequence.
    """

    marker: str
    class_name: str
    probability: float
    regions: NDArray[np.float32] | None
    sequences: Mapping[Sequence, float]


@dataclass(frozen=True)
class OcclusionResult:
    """block_mm: side of the occluded blocks. blocks, sequences: number occluded, one at a time."""

    block_mm: float
    blocks: int
    sequences: int
    markers: tuple[MarkerOcclusion, ...]


@dataclass(frozen=True)
class CaseAnswer:
    """One case. Arrays are (X, Y, Z) on the prepared grid, whose affine is voxel to RAS mm.

    prediction: of the network, before calibration. segmentation: its spread over the passes, as
    scanned and, for some models, mirrored; volumes in ml of the space. volume_scale: ml on the
    patient's scan for each ml in the space. dropout_samples: number of samples of the markers'
    intervals. occlusion: None where it was not computed. measures, limits: measures and limits of
    the preparation's quality control. missing: missing sequences. unused: sequences that were
    scanned and not used, since no training case of the model had them. person: age and sex, as far
    as known. fused: markers to which the model joins these; empty for a model that does not.
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
    unused: tuple[Sequence, ...]
    day: date
    person: Person = field(default_factory=Person)
    fused: tuple[str, ...] = ()
