"""Few features of a predicted mask, by plain sums over its voxels, without a further library.

Volume and shape of the mask, and mean and spread of each sequence in it, on the prepared grid and
its intensities (z-scored over the brain). They are those that published radiomic tables have in
common; textures, of which there are hundreds, fit the scanners of so few training cases.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.radiomics.input_names import MASK_FEATURES, SHAPE
from gliofed.types import SEQUENCES, Sequence

ENHANCING: Final = 1.0
"""Voxels whose T1CE is above T1 by more than this, in standard deviations, count as enhancing."""


def mask_features(prepared: PreparedCase, mask: NDArray[np.bool_]) -> Values:
    """(F,) values of `MASK_FEATURES`, NaN where a sequence is missing; of fewer than four voxels,
    volume alone. mask: (X, Y, Z) on the prepared grid."""
    spacing = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    values = dict.fromkeys(MASK_FEATURES, np.nan)
    values["volume_ml"] = mask.sum() * spacing.prod() / 1000
    if mask.sum() < 4:
        return np.array(list(values.values()), float)
    values |= zip(SHAPE, _shape(mask, spacing), strict=True)
    inside = {
        s: prepared.image[channel][mask].astype(float)
        for channel, s in enumerate(SEQUENCES)
        if prepared.present[channel]
    }
    for sequence, voxels in inside.items():
        values[f"{sequence.value}_mean"] = voxels.mean()
        values[f"{sequence.value}_sd"] = voxels.std()
    if {Sequence.T1, Sequence.T1CE} <= set(inside):
        gain = inside[Sequence.T1CE] - inside[Sequence.T1]
        values["T1CE_less_T1_mean"] = gain.mean()
        values["enhancing_fraction"] = (gain > ENHANCING).mean()
    if {Sequence.T2, Sequence.FLAIR} <= set(inside):
        values["T2_less_FLAIR_mean"] = (inside[Sequence.T2] - inside[Sequence.FLAIR]).mean()
    return np.array(list(values.values()), float)


def _shape(mask: NDArray[np.bool_], spacing: Values) -> tuple[float, ...]:
    """The values of `SHAPE`."""
    volume = float(mask.sum() * spacing.prod())
    eigenvalues = np.linalg.eigvalsh(np.cov((np.argwhere(mask) * spacing).T))
    third, second, first = np.maximum(eigenvalues, 0.0).tolist()
    padded = np.pad(mask, 1).astype(np.int8)
    faces = [np.abs(np.diff(padded, axis=a)).sum() * spacing.prod() / spacing[a] for a in range(3)]
    surface = float(np.sum(faces))
    return (
        volume / 1000,
        (second / first) ** 0.5,
        (third / first) ** 0.5,
        float((36 * np.pi * volume**2) ** (1 / 3) / surface),
        surface / volume,
    )
