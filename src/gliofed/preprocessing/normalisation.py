"""Normalises intensities: MRI has no common unit between scanners, so each sequence is z-scored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def zscore(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(x - mean) / standard deviation over the brain, clipped to +-10; 0 outside.

    A sequence that is constant in the brain becomes 0 everywhere.
    """
    inside = image[brain].astype(np.float64)
    spread = float(inside.std()) if inside.size else 0.0
    if spread < 1e-8:
        return np.zeros_like(image)
    scaled = image - float(inside.mean())
    scaled /= spread
    np.clip(scaled, -10, 10, out=scaled)
    scaled[~brain] = 0
    return scaled
