"""Segmentation metrics: overlap, surface distance, volume and lesions of two masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.results import LesionCounts

Mask = NDArray[np.bool_]
SMALLEST_LESION_ML = 0.05
"""Connected components below this volume are not counted as lesions: 50 voxels of 1 mm."""


def dice(truth: Mask, predicted: Mask) -> float:
    """2 |A and B| / (|A| + |B|) (Dice 1945). Both empty: 1; one empty: 0."""
    total = int(truth.sum()) + int(predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0


def hd95_mm(truth: Mask, predicted: Mask, spacing_mm: NDArray[np.float64]) -> float | None:
    """95th percentile of the symmetric surface distance in mm.

    The larger of the two directed 95th percentiles, bit for bit as MONAI 1.6 computes it, whose
    import would take seconds in every scoring process. None if either mask is empty.
    """
    if not truth.any() or not predicted.any():
        return None
    where = np.nonzero(truth | predicted)
    box = tuple(slice(int(w.min()), int(w.max()) + 1) for w in where)
    one, other = (_surface_mm(mask[box], spacing_mm) for mask in (predicted, truth))
    return max(_percentile_95(one, other), _percentile_95(other, one))


def _surface_mm(mask: Mask, spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(points, 3): positions in mm of the mask's border voxels."""
    from scipy import ndimage

    edge = np.argwhere(ndimage.binary_erosion(mask) ^ mask)
    counted: NDArray[np.float64] = edge.astype(np.float64) + 1  # MONAI crops with a margin of 1
    return counted * spacing_mm


def _percentile_95(points: NDArray[np.float64], to: NDArray[np.float64]) -> float:
    """95th percentile of the distances from each point to the nearest of `to`; float32, as in
    MONAI."""
    import torch
    from scipy.spatial import KDTree

    nearest = KDTree(to, leafsize=32).query(points)[0].astype(np.float32)
    return float(torch.quantile(torch.from_numpy(nearest), 0.95))


def volume_ml(mask: Mask, spacing_mm: NDArray[np.float64]) -> float:
    """Volume in millilitres of the mask's voxels."""
    return float(mask.sum()) * float(np.prod(spacing_mm)) / 1000


def lesions(truth: Mask, predicted: Mask, spacing_mm: NDArray[np.float64]) -> LesionCounts:
    """Count lesions of both masks (26-connected components) and those that overlap.

    An expert lesion is found if any predicted voxel lies in it; a predicted one is false if it has
    no expert voxel. Components below `SMALLEST_LESION_ML` are not counted, but an overlap with them
    counts.
    """
    drawn, met = _parts(truth, predicted, spacing_mm)
    predicted_lesions, true = _parts(predicted, truth, spacing_mm)
    return LesionCounts(true=drawn, detected=met, false=predicted_lesions - true)


def _parts(mask: Mask, other: Mask, spacing_mm: NDArray[np.float64]) -> tuple[int, int]:
    """Number of components that are large enough, and how many of these overlap the other mask."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    # compared in voxels, so that rounding has no effect
    large = sizes >= np.ceil(SMALLEST_LESION_ML * 1000 / np.prod(spacing_mm) - 1e-6)
    touched = np.zeros(count + 1, bool)
    touched[parts[other]] = True
    return int(large.sum()), int((large & touched[1:]).sum())
