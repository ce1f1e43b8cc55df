"""Whether two prepared scans lie on each other, told without their truth."""

from __future__ import annotations

from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

BINS: Final = 32
STEP_MM: Final = 2.0
"""One voxel in so many mm is looked at: the fine anatomy that tells patients apart is larger."""
AWAY_MM: Final = 6.0
LEAST: Final = 1e-3
"""Mutual information below this is chance."""


def alignment(
    one: NDArray[np.float32],
    other: NDArray[np.float32],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
) -> float:
    """How many times more the two tell of each other where they lie than `AWAY_MM` away.

    Their normalised mutual information less 1, over its mean after a shift along each axis to
    both sides. Mutual information alone differs as much between pairs of sequences as between
    right and wrong; beside its own value nearby it does not. About 1 for two patients, or for
    scans that lie wrong; 0 where they have no common structure. All on one grid, affine to mm.
    """
    sizes = voxel_sizes(affine)
    thin = tuple(slice(None, None, max(1, round(STEP_MM / float(s)))) for s in sizes)
    one, other, brain = one[thin], other[thin], brain[thin]
    here = normalised_mutual_information(one, other, brain) - 1
    if here < LEAST:
        return 0.0
    near = []
    for axis, size in enumerate(sizes):
        far = max(1, round(AWAY_MM / (float(size) * (thin[axis].step or 1))))
        head, tail = (_along(axis, s) for s in (slice(far, None), slice(None, -far)))
        near.append(normalised_mutual_information(one[head], other[tail], brain[head]))
        near.append(normalised_mutual_information(one[tail], other[head], brain[tail]))
    return here / max(float(np.mean(near)) - 1, LEAST)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))


def normalised_mutual_information(
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
