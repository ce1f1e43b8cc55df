"""Everything on the page of one case, as plain values: the page knows no network and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.cns5 import IntegratedType
from gliofed.types import Sequence

OUTLINED: Final = 0.5
"""The probability of tumour from which on a voxel is within the outline."""


@dataclass(frozen=True)
class MarkerAnswer:
    """One marker's answer. marker: its id; all else in the order of its classes.

    probabilities: calibrated where the model has a calibration, else its own. low, high: bounds of
    the same kind of probability, which `CaseContent.draws` names; None with one pass. left: class
    names that the prediction set does not rule out; kept: whether the answer is confident enough
    for the risk wished; both None without a calibration.
    """

    marker: str
    probabilities: tuple[float, ...]
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    left: tuple[str, ...] | None
    kept: bool | None


@dataclass(frozen=True)
class Occlusion:
    """What a marker's answer rests on, for one class of it.

    of: the class that is explained. probability: the network's own for it, before calibration; None
    where it is not finite. regions: float32 (X, Y, Z) on the case's grid, by how much that
    probability falls where a block about the voxel is hidden, 0 outside the brain; None where
    there is no map. block_mm: side of these blocks. sequences: the fall where a whole sequence is
    hidden, of those that are there; empty where there are not two. notes: a sentence for each
    part that is absent, saying why.
    """

    marker: str
    of: str
    probability: float | None
    block_mm: float
    regions: NDArray[np.float32] | None
    sequences: Mapping[Sequence, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AnsweringModel:
    """Which model answered, in words for the page. id: digest that names it. trained, tested,
    calibrated: one line each, empty where it does not say; synthetic: trained on drawn patients."""

    name: str
    id: str
    trained: str
    tested: str
    calibrated: str
    synthetic: bool


@dataclass(frozen=True)
class CaseContent:
    """One case. Arrays are (X, Y, Z) on one grid, whose `register_affine` is voxel to RAS mm.

    space: whose millimetres these are. In "mni152" brains are stretched to one size, so that
    `volume_ml` cannot be of this grid: it is of the outline at one half on the patient's scan.
    volume_range_ml: least and greatest over passes; None with one.
    images: of the sequences that are there, z-scored in the brain, 0 elsewhere. probability: of
    tumour, 0 to 1. deviation: standard deviation of it over passes; None with one. passes: what
    the spread of the outline is over, as words that follow "over", such as "6 passes: 3 models,
    each also of the mirrored scan"; draws: what bounds the markers' low and high are, as words
    that follow "In brackets:"; each empty with one pass. whys: empty where nothing was explained;
    explained: how they were found, in sentences. quality: faults of the preparation, each a
    sentence with a cure; empty where there is none. missing: sequences that the case does not
    have. written: the day, ISO 8601.
    """

    case: str
    source: AnsweringModel
    images: Mapping[Sequence, NDArray[np.float32]]
    affine: NDArray[np.float64]
    space: Literal["mni152", "scanner"]
    probability: NDArray[np.float32]
    deviation: NDArray[np.float32] | None
    volume_ml: float
    volume_range_ml: tuple[float, float] | None
    passes: str
    draws: str
    markers: tuple[MarkerAnswer, ...]
    integrated: IntegratedType
    whys: tuple[Occlusion, ...]
    explained: str
    quality: tuple[str, ...]
    missing: tuple[Sequence, ...]
    written: str
