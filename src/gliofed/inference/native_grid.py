"""Back to the grid of the scan, where a mask is scored and read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.preprocessing.resampling import resample
from gliofed.types import Placement, Prediction

THRESHOLD = 0.5


def mask_on_scan(prediction: Prediction, placement: Placement) -> NDArray[np.bool_]:
    """The predicted mask on a scan's own grid: probability resampled once, then cut at one half.

    The exact inverse of the way the scan came. Outside the network's field it is False.
    """
    affine = np.linalg.inv(placement.matrix) @ placement.affine
    there = resample(prediction.probability, prediction.affine, placement.shape, affine)
    return there >= THRESHOLD


def scan_volume_ratio(prepared: PreparedCase) -> float:
    """How large the scan's own anatomy is to that in the network's space, as a volume.

    1 in the scanner's space; in MNI152, to which brains are stretched, the determinant of the way
    back to the scan that the region is drawn on (FLAIR, where it is there).
    """
    placement = next(prepared.placements[s] for s in MASKED_ON if s in prepared.placements)
    return float(abs(np.linalg.det(placement.matrix[:3, :3])))
