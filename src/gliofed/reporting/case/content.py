"""The content of the page of one case, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.types import Sequence

OUTLINED: Final = 0.5
"""Voxels with at least this probability of tumour are in the segmentation."""


@dataclass(frozen=True)
class Occlusion:
    """Fall of the probability of one class of a marker under occlusion.

    class_name: the class that is explained. probability: the network's own, before calibration;
    None if not finite. regions: float32 (X, Y, Z) on the case's grid, the fall when a block around
    the voxel is occluded, 0 outside the brain; None without a map. block_mm: side of these blocks.
    sequences: the fall without each present sequence; empty with fewer than two. notes: a sentence
    for each absent part, with the reason.
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
    """The model as text for the page. id: its digest. trained, tested, calibrated: one line each,
    empty if unknown; synthetic: trained on phantoms."""

    name: str
    id: str
    trained: str
    tested: str
    calibrated: str
    synthetic: bool


@dataclass(frozen=True)
class CaseContent:
    """One case. Arrays are (X, Y, Z) on one grid, whose `affine` is voxel to RAS mm.

    space: of the millimetres. In "mni152" brains are stretched to one size, so that `volume_ml` is
    measured on the patient's scan, at probability one half. volume_range_ml: smallest and largest
    over passes; None with one. images: of the sequences that are present, z-scored in the brain, 0
    elsewhere. probability: of tumour, 0 to 1. deviation: its standard deviation over passes; None
    with one. passes: text that follows "over", such as "6 passes: 3 models, each also of the
    mirrored scan"; intervals: text that follows "In brackets:"; each empty with one pass.
    occlusions: empty if not computed; occlusion_method: sentences on how they were computed.
    quality: what the checks found, each a sentence with a cure; may be empty. missing: missing
    sequences. unused: sequences that were scanned and that the model was not trained with. written:
    the day, ISO 8601. inputs: a sentence on the markers that age and sex are joined to, empty for a
    model without; person: value of each of "age" and "sex" that was joined.
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
    unused: tuple[Sequence, ...] = ()
    inputs: str = ""
    person: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_volume(self) -> bool:
        """Whether T2 or FLAIR was used, on which the region is defined."""
        return not {Sequence.T2, Sequence.FLAIR} <= {*self.missing, *self.unused}
