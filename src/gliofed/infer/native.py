"""Back to the grid of the scan, where a mask is scored and read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.prepare.resample import Affine, Shape, resample
from gliofed.types import Prediction

THRESHOLD = 0.5


def mask_on(prediction: Prediction, shape: Shape, affine: Affine) -> NDArray[np.bool_]:
    """The predicted mask on another grid: probability resampled, then cut at one half.

    shape, affine: of that grid, voxel to RAS millimetres. Outside the network's field it is False.
    """
    there = resample(prediction.probability, prediction.affine, shape, affine)
    return there >= THRESHOLD
