"""Back to the grid of the scan, where a mask is scored and read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.prepare.resample import resample
from gliofed.types import Placement, Prediction

THRESHOLD = 0.5


def mask_on(prediction: Prediction, placement: Placement) -> NDArray[np.bool_]:
    """The predicted mask on a scan's own grid: probability resampled once, then cut at one half.

    The exact inverse of the way the scan came. Outside the network's field it is False.
    """
    affine = np.linalg.inv(placement.matrix) @ placement.affine
    there = resample(prediction.probability, prediction.affine, placement.shape, affine)
    return there >= THRESHOLD
