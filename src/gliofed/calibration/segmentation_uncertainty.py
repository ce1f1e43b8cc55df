"""Uncertainty of a segmentation, from several probability maps of one case.

The maps come from models trained with different seeds (deep ensembles, Lakshminarayanan et al.
2017, NeurIPS 30), from mirrored passes, or from other samples. Volume's spread and the Dice
coefficient between members, as measures for a structure: Roy et al. 2019, NeuroImage 195:11.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from gliofed.evaluation.metrics.segmentation import dice, volume_ml


@dataclass(frozen=True)
class SegmentationUncertainty:
    """Mean and spread of several probability maps of one case.

    mean, deviation, entropy: float32 (X, Y, Z): of the members' tumour probabilities, the standard
    deviation dividing by K, and the entropy of the mean in bits, 0 to 1. volumes_ml: of each
    member's segmentation, in the members' order. volume_ml: of the segmentation of the mean.
    agreement: mean Dice over all pairs of members, an estimate of the Dice with another such
    segmentation; 1 between two empty ones. None with one member.
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    entropy: NDArray[np.float32]
    volumes_ml: tuple[float, ...]
    volume_ml: float
    agreement: float | None

    @property
    def volume_range_ml(self) -> tuple[float, float] | None:
        """The smallest and the largest member's volume: a range of K values, not a 95 % interval.
        None with one member."""
        if len(self.volumes_ml) < 2:
            return None
        return min(self.volumes_ml), max(self.volumes_ml)


def ensemble_uncertainty(
    members: Sequence[NDArray[np.float32]], spacing_mm: NDArray[np.float64], threshold: float
) -> SegmentationUncertainty:
    """members: K maps (X, Y, Z) of tumour probability on one grid; spacing_mm: (3,), of its voxels.

    A voxel is tumour if its probability is at least `threshold`. Raises ValueError without a
    member, for maps of different shapes, and for a probability that is not finite.
    """
    if not members or len({m.shape for m in members}) > 1:
        raise ValueError(f"expected maps of one shape, found {[m.shape for m in members]}")
    if not all(np.isfinite(m).all() for m in members):
        raise ValueError("a probability is not finite")
    mean: NDArray[np.float64] = np.mean(members, axis=0, dtype=np.float64)
    inner = np.clip(mean, 0, 1)
    bits = -(xlogy(inner, inner) + xlogy(1 - inner, 1 - inner)) / np.log(2)
    masks = [m >= threshold for m in members]
    pairs = [dice(a, b) for a, b in itertools.combinations(masks, 2)]
    return SegmentationUncertainty(
        mean.astype(np.float32),
        np.std(members, axis=0, dtype=np.float64).astype(np.float32),
        bits.astype(np.float32),
        tuple(volume_ml(o, spacing_mm) for o in masks),
        volume_ml(mean >= threshold, spacing_mm),
        float(np.mean(pairs)) if pairs else None,
    )
