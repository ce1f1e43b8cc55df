"""How well two masks agree, on the scan's own grid."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def dice(truth: Mask, predicted: Mask) -> float:
    """2 |A and B| / (|A| + |B|) (Dice 1945). Both empty: 1; one empty: 0."""
    total = int(truth.sum()) + int(predicted.sum())
    return 2 * int((truth & predicted).sum()) / total if total else 1.0


def hd95_mm(truth: Mask, predicted: Mask, spacing_mm: NDArray[np.float64]) -> float | None:
    """95th percentile of the symmetric surface distance in mm, by MONAI.

    The larger of the two directed 95th percentiles. None where either mask is empty: there is no
    surface to measure from.
    """
    if not truth.any() or not predicted.any():
        return None
    import torch
    from monai.metrics import compute_hausdorff_distance

    where = np.nonzero(truth | predicted)
    box = tuple(slice(max(int(w.min()) - 1, 0), int(w.max()) + 2) for w in where)
    pair = [torch.from_numpy(np.ascontiguousarray(m[box]))[None, None] for m in (predicted, truth)]
    with warnings.catch_warnings():  # MONAI warns of an argument that it sets itself
        warnings.simplefilter("ignore", FutureWarning)
        distance = compute_hausdorff_distance(
            pair[0], pair[1], include_background=True, percentile=95,
            spacing=[float(s) for s in spacing_mm],
        )  # fmt: skip
    return float(distance[0, 0])


def volume_ml(mask: Mask, spacing_mm: NDArray[np.float64]) -> float:
    """Volume in millilitres of the mask's voxels."""
    return float(mask.sum()) * float(np.prod(spacing_mm)) / 1000
