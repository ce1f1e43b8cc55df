"""Resamples predicted masks from the network's space to the grid of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.preprocessing.resampling import resample_above
from gliofed.types import Placement, Prediction

THRESHOLD = 0.5


def mask_on_scan(prediction: Prediction, placement: Placement) -> NDArray[np.bool_]:
    """The predicted mask on a scan's own grid: probability resampled once, then cut at one half.

    The inverse of the scan's own transform. False outside the network's field of view.
    """
    affine = np.linalg.inv(placement.matrix) @ placement.affine
    return resample_above(
        prediction.probability, prediction.affine, placement.shape, affine, THRESHOLD
    )


def scan_volume_ratio(prepared: PreparedCase) -> float:
    """Volume on the scan for each unit of volume in the network's space.

    1 in the scanner's space; in MNI152, to which brains are stretched, the determinant of the
    transform back to the scan that masks are drawn on (FLAIR, where present).
    """
    placement = next(prepared.placements[s] for s in MASKED_ON if s in prepared.placements)
    return float(abs(np.linalg.det(placement.matrix[:3, :3])))
