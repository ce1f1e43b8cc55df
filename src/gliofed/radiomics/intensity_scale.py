"""Brings the intensities of several tables to one scale, by sums over the hospitals of a table.

MRI has no unit. Each table has its own: 8-bit images, or multiples of the tissue around the tumour.
Every intensity of a sequence is divided by the mean, over all patients of the table, of that
sequence in the whole tumour. So the unit is "as bright as this table's tumours on average". It
needs the number of patients and one sum a sequence, and no label. What it leaves (offsets, scanners
within a table) is for ComBat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.radiomics.standardisation import FeatureTotals, sum_over_sites
from gliofed.radiomics.vocabulary import FEATURES, NAMES
from gliofed.types import SEQUENCES


@dataclass(frozen=True)
class IntensityScale:
    """unit: (sequences,), what intensities of each sequence are divided by, in the order of
    `SEQUENCES`; 1 for a sequence that no patient has."""

    unit: Values

    def apply(self, values: Values) -> Values:
        """(n, F) features of the vocabulary with every intensity in the common unit."""
        factors = [
            1.0 if f.intensity is None else float(self.unit[SEQUENCES.index(f.intensity)])
            for f in FEATURES
        ]
        scaled: Values = values / np.array(factors)
        return scaled


def intensity_totals(values: Values) -> FeatureTotals:
    """One hospital's sums. values: (n, F) features of the vocabulary, NaN where unknown."""
    own = values[:, _MEANS]
    known = np.isfinite(own)
    return FeatureTotals(known.sum(0).astype(float), np.where(known, own, 0.0).sum(0))


def fit_intensity_scale(totals: Iterable[FeatureTotals], table: str) -> IntensityScale:
    """The scale of one table from the sums of its hospitals.

    Raises DataError if a mean is not above 0, as after z-scoring: such a scale has no unit.
    """
    together = sum_over_sites(totals)
    unit = np.where(together.known > 0, together.mean, 1.0)
    for scan, mean in zip(SEQUENCES, unit, strict=True):
        if mean <= 0:
            raise DataError(
                f"{table}: the mean of {scan.value} in the tumours is {mean:g}; expected "
                "intensities above 0; use the table before z-scoring"
            )
    return IntensityScale(unit)


_MEANS = [NAMES.index(f"wt_{s.value.lower()}_mean") for s in SEQUENCES]
