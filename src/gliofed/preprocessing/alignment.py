"""Measures without ground truth whether two prepared scans are registered."""

from __future__ import annotations

from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from gliofed.preprocessing.brain_extraction import bounding_box

BINS: Final = 32
STEP_MM: Final = 2.0
"""Distance of the sampled voxels; anatomy that differs between patients is larger."""
AWAY_MM: Final = 6.0
LEAST: Final = 1e-3
"""Mutual information (less 1) below this is noise."""


def alignment(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
) -> float:
    """Normalised mutual information of two images, relative to its value after a shift.

    (NMI - 1), divided by the mean of the same after shifts of `AWAY_MM` along each axis to both
    sides. NMI alone differs as much between pairs of sequences as between registered and other
    scans; the ratio does not. About 1 for two patients or misaligned scans; 0 without common
    structure. All on one grid; affine: voxel to mm.
    """
    steps, sizes = sampled_every(affine), voxel_sizes(affine)
    thin = tuple(slice(None, None, step) for step in steps)
    brain = brain[thin]
    if not brain.any():
        return 0.0
    reach = [max(1, round(AWAY_MM / (float(s) * n))) for s, n in zip(sizes, steps, strict=True)]
    box = tuple(
        slice(max(0, part.start - far), part.stop + far)
        for part, far in zip(bounding_box(brain), reach, strict=True)
    )
    first = np.ascontiguousarray(first[thin][box])
    second = np.ascontiguousarray(second[thin][box])
    brain = np.ascontiguousarray(brain[box])
    here = normalised_mutual_information(first, second, brain) - 1
    if here < LEAST:
        return 0.0
    near = []
    for axis, far in enumerate(reach):
        head, tail = (_along(axis, s) for s in (slice(far, None), slice(None, -far)))
        near.append(normalised_mutual_information(first[head], second[tail], brain[head]))
        near.append(normalised_mutual_information(first[tail], second[head], brain[tail]))
    return here / max(float(np.mean(near)) - 1, LEAST)


def sampled_every(affine: NDArray[np.float64]) -> tuple[int, int, int]:
    """Along each axis, `alignment` reads each so many-th voxel: about one in `STEP_MM`."""
    x, y, z = (max(1, round(STEP_MM / float(size))) for size in voxel_sizes(affine))
    return x, y, z


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if a == axis else slice(None) for a in range(3))


def normalised_mutual_information(
    first: NDArray[np.float32], second: NDArray[np.float32], brain: NDArray[np.bool_]
) -> float:
    """Normalised mutual information, (H(a) + H(b)) / H(a, b), where both have signal in the brain.

    1: independent; 2: each determines the other (Studholme et al. 1999, Pattern Recognition
    32:71). Images of one grid. 1.0 where either is constant or they have no voxel in common.
    """
    both = brain & (first != 0) & (second != 0)
    if not both.any():
        return 1.0
    pairs = _bins(first[both]) * BINS + _bins(second[both])
    counts = np.bincount(pairs, minlength=BINS * BINS).reshape(BINS, BINS).astype(np.float64)
    joint = _entropy(counts.ravel())
    if joint <= 0:
        return 1.0
    return float((_entropy(counts.sum(0)) + _entropy(counts.sum(1))) / joint)


def _bins(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """Scale from 1st to 99th percentile onto bins, so that bright vessels do not fill them."""
    low, high = np.percentile(values, [1, 99])
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 0.999)
    return np.asarray(scaled * BINS).astype(np.intp)


def _entropy(counts: NDArray[np.float64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
