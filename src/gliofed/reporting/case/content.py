"""The content of the page of one case, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.types import Sequence

OUTLINED: Final = 0.5
"""The probability of tumour from which on a voxel is within the outline."""


@dataclass(frozen=True)
class Occlusion:
    """How the probability of one class of a marker falls where a part of the scan is hidden.

    class_name: the class that is explained. probability: the network's own, before calibration;
    None where it is not finite. regions: float32 (X, Y, Z) on the case's grid, the fall where a
    block about the voxel is hidden, 0 outside the brain; None where there is no map. block_mm: side
    of these blocks. sequences: the fall without each whole sequence that is present; empty with
    fewer than two. notes: a sentence for each absent part, with the reason.
    """

    marker: str
    class_name: str
    probability: float | None
    block_mm: float
    regions: NDArray[np.float32] | None
    sequences: Mapping[Sequence, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ModelDescription:
    """The model, in words for the page. id: digest that names it. trained, tested, calibrated: one
    line each, empty where not known; synthetic: trained on phantoms."""

    name: str
    id: str
    trained: str
    tested: str
    calibrated: str
    synthetic: bool


@dataclass(frozen=True)
class CaseContent:
    """One case. Arrays are (X, Y, Z) on one grid, whose `affine` is voxel to RAS mm.

    space: whose millimetres these are. In "mni152" brains are stretched to one size, so that
    `volume_ml` cannot be of this grid: it is of the segmentation at one half on the patient's scan.
    volume_range_ml: least and greatest over passes; None with one.
    images: of the sequences that are present, z-scored in the brain, 0 elsewhere. probability: of
    tumour, 0 to 1. deviation: its standard deviation over passes; None with one. passes: what
    the spread of the segmentation is over, as words that follow "over", such as "6 passes: 3
    models, each also of the mirrored scan"; intervals: what the bounds of the markers are, as words
    that follow "In brackets:"; each empty with one pass. occlusions: empty where none was computed;
    occlusion_method: how they were computed, in sentences. quality: faults of the preparation, each
    a sentence with a cure; empty where there is none. missing: sequences that the case does not
    have. written: the day, ISO 8601.
    """

    case: str
    source: ModelDescription
    images: Mapping[Sequence, NDArray[np.float32]]
    affine: NDArray[np.float64]
    space: Literal["mni152", "scanner"]
    probability: NDArray[np.float32]
    deviation: NDArray[np.float32] | None
    volume_ml: float
    volume_range_ml: tuple[float, float] | None
    passes: str
    intervals: str
    markers: tuple[MarkerAnswer, ...]
    integrated: IntegratedType
    occlusions: tuple[Occlusion, ...]
    occlusion_method: str
    quality: tuple[str, ...]
    missing: tuple[Sequence, ...]
    written: str
