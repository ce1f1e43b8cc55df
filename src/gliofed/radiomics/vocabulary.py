"""The features that published radiomic tables have in common, each with its formula and unit.

Tables differ in regions, features and intensity units. What every table gives, or what follows from
it by a formula, is a feature of this vocabulary: the volume of the whole tumour, and mean and
spread of each sequence within it. The same of each region is regional: a table of the whole tumour
only has none of it. docs/adr/0039-common-radiomic-features.md says what is not in it, and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Scan

REGIONS: Final = ("et", "ncr", "ed")
"""Enhancing tumour, necrotic and non-enhancing core, oedema: labels 4, 1 and 2 of BraTS."""
WHOLE: Final = "wt"
_REFERENCE: Final = "ed"
"""The region that the means of the others are divided by."""


@dataclass(frozen=True)
class RegionMeasures:
    """What a table gives of one region of one case. NaN: unknown.

    volume_mm3: 0 for a region that the patient does not have. mean, spread: of a sequence's
    intensities in it, in the table's units; spread is their standard deviation.
    """

    volume_mm3: float
    mean: Mapping[Scan, float]
    spread: Mapping[Scan, float]


UNKNOWN_REGION: Final = RegionMeasures(
    math.nan, dict.fromkeys(SEQUENCES, math.nan), dict.fromkeys(SEQUENCES, math.nan)
)


@dataclass(frozen=True)
class FeatureDefinition:
    """One feature. intensity: the sequence in whose units it is; None without such a unit.
    regional: whether it needs the regions of the tumour."""

    name: str
    unit: str
    formula: str
    intensity: Scan | None = None
    regional: bool = False


def _of_region(region: str, title: str) -> tuple[FeatureDefinition, ...]:
    regional = region != WHOLE
    out: list[FeatureDefinition] = []
    for scan in SEQUENCES:
        name = f"{region}_{scan.value.lower()}"
        unit = f"mean of {scan.value} over all patients of the table"
        out += (
            FeatureDefinition(f"{name}_mean", unit, f"mean of {title}", scan, regional),
            FeatureDefinition(
                f"{name}_spread", unit, f"standard deviation of {title}", scan, regional
            ),
            FeatureDefinition(f"{name}_variation", "none", "spread / mean", None, regional),
        )
    return tuple(out)


COMMON: Final = (
    FeatureDefinition(
        "wt_log_volume", "ln(ml)", "natural logarithm of the sum of the regions' volumes"
    ),
    *_of_region(
        WHOLE,
        "the whole tumour; of regions: m = sum(v m_r) / sum(v), "
        "variance = sum(v (s_r^2 + m_r^2)) / sum(v) - m^2, weights v: volumes",
    ),
)
"""Features of the whole tumour, which every table has."""
REGIONAL: Final = (
    *(
        FeatureDefinition(
            f"{r}_fraction", "none", "volume of the region / whole tumour", regional=True
        )
        for r in REGIONS
    ),
    *(f for r in REGIONS for f in _of_region(r, "the region")),
    *(
        FeatureDefinition(
            f"{r}_{s.value.lower()}_to_{_REFERENCE}",
            "none",
            f"mean of the region / mean of {_REFERENCE}",
            regional=True,
        )
        for r in REGIONS
        if r != _REFERENCE
        for s in SEQUENCES
    ),
)
"""Features of regions; unknown in a table without them."""
FEATURES: Final = (*COMMON, *REGIONAL)
NAMES: Final = tuple(f.name for f in FEATURES)


def whole_tumour(regions: Mapping[str, RegionMeasures]) -> RegionMeasures:
    """All regions as one: volumes added, means weighted by volume, and the pooled variance, which
    includes the spread of the regions' means.

    The regions' variances are taken as divided by the number of voxels. A region of volume 0 adds
    nothing; one of unknown volume makes everything unknown. No tumour: means are unknown.
    """
    there = [r for r in regions.values() if r.volume_mm3 != 0]
    weights = np.array([r.volume_mm3 for r in there])
    total = float(weights.sum())
    mean: dict[Scan, float] = dict.fromkeys(SEQUENCES, math.nan)
    spread = dict(mean)
    for scan in SEQUENCES if total > 0 else ():
        means = np.array([r.mean[scan] for r in there])
        centre = float(weights @ means) / total
        squares = np.array([r.spread[scan] for r in there]) ** 2 + (means - centre) ** 2
        mean[scan], spread[scan] = centre, math.sqrt(float(weights @ squares) / total)
    return RegionMeasures(total, mean, spread)


def feature_values(whole: RegionMeasures, regions: Mapping[str, RegionMeasures]) -> Values:
    """(F,) values in the order of `FEATURES`, intensities still in the table's units.

    regions: by name of `REGIONS`; empty if the table has none. NaN: unknown, or a quotient by 0.
    """
    found = {"wt_log_volume": _log(whole.volume_mm3 / 1000)}
    found |= _intensities(WHOLE, whole)
    for name, region in regions.items():
        found[f"{name}_fraction"] = _quotient(region.volume_mm3, whole.volume_mm3)
        found |= _intensities(name, region)
    for name in regions:
        for scan in SEQUENCES if name != _REFERENCE else ():
            below = regions[_REFERENCE].mean[scan]
            key = f"{name}_{scan.value.lower()}_to_{_REFERENCE}"
            found[key] = _quotient(regions[name].mean[scan], below)
    return np.array([found.get(name, math.nan) for name in NAMES])


def _intensities(name: str, region: RegionMeasures) -> dict[str, float]:
    out: dict[str, float] = {}
    for scan in SEQUENCES:
        key, mean, spread = f"{name}_{scan.value.lower()}", region.mean[scan], region.spread[scan]
        out |= {
            f"{key}_mean": mean,
            f"{key}_spread": spread,
            f"{key}_variation": _quotient(spread, mean),
        }
    return out


def _quotient(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _log(value: float) -> float:
    return math.log(value) if value > 0 else math.nan
