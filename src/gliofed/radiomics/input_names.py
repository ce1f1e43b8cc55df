"""Names of the inputs of a regression that are known without reading any case."""

from __future__ import annotations

from typing import Final

from gliofed.types import SEQUENCES

SHAPE: Final = ("volume_ml", "elongation", "flatness", "sphericity", "surface_per_mm")
MASK_FEATURES: Final = (
    *SHAPE,
    *(f"{s.value}_{statistic}" for s in SEQUENCES for statistic in ("mean", "sd")),
    "T1CE_less_T1_mean",
    "enhancing_fraction",
    "T2_less_FLAIR_mean",
)
"""elongation, flatness: roots of the ratios of the second and third to the first eigenvalue of the
voxels' covariance. sphericity: surface of the sphere of this volume over the mask's, which is the
sum of its voxels' outer faces; surface_per_mm: that over the volume, in 1/mm."""
AGE_SEX_NAMES: Final = ("age_years", "sex_male")
