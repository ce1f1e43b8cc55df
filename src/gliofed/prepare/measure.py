"""What two prepared scans say of each other."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 32


def shared_information(
    one: NDArray[np.float32], other: NDArray[np.float32], brain: NDArray[np.bool_]
) -> float:
    """Normalised mutual information, (H(a) + H(b)) / H(a, b), where both have signal in the brain.

    1: nothing in common; 2: each tells the other (Studholme et al. 1999, Pattern Recognition
    32:71). Images of one grid. 1.0 where either is constant or they have no voxel in common.
    """
    both = brain & (one != 0) & (other != 0)
    if not both.any():
        return 1.0
    counts, _, _ = np.histogram2d(_bins(one[both]), _bins(other[both]), BINS, [[0, BINS]] * 2)
    together = _entropy(counts.ravel())
    if together <= 0:
        return 1.0
    return float((_entropy(counts.sum(0)) + _entropy(counts.sum(1))) / together)


def _bins(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Between the 1st and 99th percentile, so that a few bright vessels do not take all bins."""
    low, high = np.percentile(values, [1, 99])
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 0.999)
    return np.asarray(scaled * BINS, np.float64)


def _entropy(counts: NDArray[np.float64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
