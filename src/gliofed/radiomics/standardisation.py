"""Mean and spread of every feature over all sites, from sums over known values."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self, TypeVar

import numpy as np

from gliofed.evaluation.intervals.bootstrap import Values

MAX_DEVIATIONS: Final = 5.0
"""Values are clipped to this many standard deviations from the mean, so that one outlying feature
does not decide a prediction."""
_FLAT: Final = 1e-9
"""A smaller spread relative to the mean counts as rounding of a constant."""


class Addable(Protocol):
    """Sums that add across sites."""

    def __add__(self, other: Self) -> Self: ...


_S = TypeVar("_S", bound=Addable)


def sum_over_sites(sums: Iterable[_S]) -> _S:
    """The sums of all sites as one. Raises TypeError without a site."""
    return functools.reduce(operator.add, sums)


@dataclass(frozen=True)
class FeatureTotals:
    """known: (F,), number of known cases of each feature. sum: (F,), over these."""

    known: Values
    sum: Values

    def __add__(self, other: FeatureTotals) -> FeatureTotals:
        return FeatureTotals(self.known + other.known, self.sum + other.sum)

    @property
    def mean(self) -> Values:
        """Means; 0 for a feature without a known case."""
        return self.sum / np.maximum(self.known, 1)


@dataclass(frozen=True)
class FeatureScaling:
    """mean, scale: (F,). scale is 0 for a feature that is constant or never known."""

    mean: Values
    scale: Values

    def standardise(self, values: Values) -> Values:
        """(n, F) in standard deviations, at most `MAX_DEVIATIONS`. Unknown values become 0, the
        mean; so do features without spread."""
        usable = self.scale > 0
        out = (values - self.mean) / np.where(usable, self.scale, 1.0)
        out = np.where(usable & np.isfinite(out), out, 0.0)
        return np.clip(out, -MAX_DEVIATIONS, MAX_DEVIATIONS)


def fit_feature_scaling(sites: Iterable[Values]) -> FeatureScaling:
    """Standardisation of all sites' (n, F) values, in two rounds: means, then squares about them.

    The variance is over known cases, divided by their number.
    """
    held = list(sites)
    mean = sum_over_sites(feature_totals(v) for v in held).mean
    squares = sum_over_sites(feature_totals((v - mean) ** 2) for v in held)
    return feature_scaling(mean, squares)


def feature_scaling(mean: Values, squares: FeatureTotals) -> FeatureScaling:
    """The standardisation of all sites. squares: of the distances from `mean`."""
    spread = np.sqrt(squares.mean)
    return FeatureScaling(mean, np.where(spread > _FLAT * np.abs(mean), spread, 0.0))


def feature_totals(values: Values) -> FeatureTotals:
    """One site's sums."""
    known = np.isfinite(values)
    return FeatureTotals(known.sum(0).astype(float), np.where(known, values, 0.0).sum(0))
