"""How like two images are: correlation and structural similarity, and which of many is nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.optimize import linear_sum_assignment

Image = NDArray[np.floating]
WINDOW: Final = 7
"""Voxels along each side of the window of the structural similarity."""


def correlation(one: Image, other: Image) -> float:
    """Pearson's correlation of two images (C, X, Y, Z) over all their values; 0 if either is
    constant."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 0 else 0.0


def structural_similarity(one: Image, truth: Image) -> float:
    """SSIM (Wang et al. 2004, IEEE Transactions on Image Processing 13:600) of (C, X, Y, Z), with a
    uniform window of 7 voxels, the mean over voxels and over the channels that `truth` has.

    The dynamic range is that of `truth`'s channel. 0 if no channel of it varies.
    """
    found = [_ssim(a, t) for a, t in zip(one, truth, strict=True) if np.ptp(t) > 0]
    return float(np.mean(found)) if found else 0.0


def _ssim(one: Image, truth: Image) -> float:
    size = [min(WINDOW, side) for side in truth.shape]
    span = float(np.ptp(truth))
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_a, mean_b = uniform_filter(one, size), uniform_filter(truth, size)
    var_a = uniform_filter(one * one, size) - mean_a**2
    var_b = uniform_filter(truth * truth, size) - mean_b**2
    both = uniform_filter(one * truth, size) - mean_a * mean_b
    above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float((above / below).mean())


def matched(found: Sequence[Image], truths: Sequence[Image]) -> list[Image]:
    """For each true image the one of `found` that is matched with it, so that the correlations have
    the largest sum: the order within a batch is not in a gradient."""
    gains = np.array([[correlation(f, t) for f in found] for t in truths])
    _, columns = linear_sum_assignment(gains, maximize=True)
    return [found[c] for c in columns]
