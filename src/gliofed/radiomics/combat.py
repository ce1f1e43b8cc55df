"""ComBat over hospitals from sums: removes each site's location and scale of every feature.

Johnson et al. 2007, Biostatistics 8:118; for imaging Fortin et al. 2017, NeuroImage 161:149; over
sites that share no case, Chen et al. 2022, NeuroImage 248:118822. Of a feature y at site i,

    y = a + x b + g_i + d_i e,     e of variance s2,

a, b and s2 come from sums that add across sites (about each site's own means, so that no site's
location or scale leaves it). Each site estimates its own g_i and d_i, shrinks them over its
features (empirical Bayes), and removes them.

x has no labels. They are unknown at a test hospital, and using them at training hospitals only
would leak the label into the features. The drawback: differences between hospitals that come from
their patients are removed too, unless age and sex explain them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.intervals.bootstrap import Values

MIN_KNOWN_CASES: Final = 2
"""Minimum number of known cases of a feature at a site for its correction. With one case, scanner
and patient cannot be separated, and the value stays."""
_STEPS: Final = 1000
_CLOSE: Final = 1e-12
_FLAT: Final = 1e-9


@dataclass(frozen=True)
class ComBatSums:
    """The sums that a site sends. F features, C covariates; a feature's sums are over its known
    cases.

    known, y: (F,); x: (F, C). yy: (F,), xy: (F, C), xx: (F, C, C): about the site's own means.
    All are 0 for a feature with fewer than `MIN_KNOWN_CASES` known cases at the site.
    """

    known: Values
    y: Values
    x: Values
    yy: Values
    xy: Values
    xx: Values

    def __add__(self, other: ComBatSums) -> ComBatSums:
        return ComBatSums(
            self.known + other.known,
            self.y + other.y,
            self.x + other.x,
            self.yy + other.yy,
            self.xy + other.xy,
            self.xx + other.xx,
        )


@dataclass(frozen=True)
class SharedEffects:
    """The parameters shared by all sites. level: (F,), a; slopes: (F, C), b; spread: (F,), the root
    of s2.

    spread is 0 for a feature that is constant or has too few known cases at every site; it is not
    corrected.
    """

    level: Values
    slopes: Values
    spread: Values

    def expected(self, covariates: Values) -> Values:
        """(n, F), a + x b."""
        return self.level + covariates @ self.slopes.T


def combat_sums(values: Values, covariates: Values) -> ComBatSums:
    """The sums of one site. values: (n, F), NaN where unknown. covariates: (n, C), all known; C may
    be 0."""
    known = np.isfinite(values)
    known &= known.sum(0) >= MIN_KNOWN_CASES
    n = known.sum(0).astype(float)
    y = np.where(known, values, 0.0)
    x = known.T.astype(float) @ covariates
    most = np.maximum(n, 1)
    from_y = np.where(known, y - y.sum(0) / most, 0.0)
    from_x = (covariates[:, None, :] - (x / most[:, None])[None]) * known[:, :, None]
    return ComBatSums(
        n,
        y.sum(0),
        x,
        (from_y**2).sum(0),
        np.einsum("nf,nfc->fc", from_y, from_x),
        np.einsum("nfc,nfd->fcd", from_x, from_x),
    )


def shared_effects(sums: ComBatSums) -> SharedEffects:
    """Fit from the sums of all sites: least squares with a separate level for each site."""
    n = np.maximum(sums.known, 1)
    inverse = np.linalg.pinv(sums.xx, rcond=1e-10, hermitian=True)
    slopes = np.einsum("fcd,fd->fc", inverse, sums.xy)
    left = sums.yy - 2 * (slopes * sums.xy).sum(1)
    left += np.einsum("fc,fcd,fd->f", slopes, sums.xx, slopes)
    level = (sums.y - (slopes * sums.x).sum(1)) / n
    spread = np.sqrt(np.maximum(left, 0) / n)
    flat = spread <= _FLAT * np.maximum(np.abs(level), np.sqrt(sums.yy / n))
    return SharedEffects(level, slopes, np.where(flat, 0.0, spread))


def harmonise(values: Values, covariates: Values, shared: SharedEffects) -> Values:
    """One site's values without its location and scale, which are computed here and not returned.

    It works for a site that sent no sums too and needs no labels. Unknown stays NaN. Not corrected:
    features with fewer than `MIN_KNOWN_CASES` known cases here or without spread, and all features
    if fewer than two can be corrected.
    """
    usable = (np.isfinite(values).sum(0) >= MIN_KNOWN_CASES) & (shared.spread > 0)
    if usable.sum() < 2:
        return values
    expected = shared.expected(covariates)[:, usable]
    own = (values[:, usable] - expected) / shared.spread[usable]
    place, scale = _shrunk(own)
    out = values.copy()
    out[:, usable] = (own - place) / scale * shared.spread[usable] + expected
    return out


def _shrunk(own: Values) -> tuple[Values, Values]:
    """(F,) location and scale of a site by empirical Bayes, parametric priors over its features.

    own: (n, F), standardised. Johnson et al. 2007, equation 3.1 and its appendix. The priors'
    variances divide by one less than the number of features.
    """
    n = np.isfinite(own).sum(0)
    mean, variance = np.nanmean(own, axis=0), np.nanvar(own, axis=0, ddof=1)
    centre, width = mean.mean(), mean.var(ddof=1)
    middle, around = variance.mean(), variance.var(ddof=1)
    if width <= 0 or middle <= 0 or around <= 0:  # identical features: nothing to shrink
        return mean, np.where(variance > 0, np.sqrt(variance), 1.0)
    shape, rate = middle**2 / around + 2, middle + middle**3 / around
    place, square = mean, variance
    for _ in range(_STEPS):
        before = place, square
        place = (n * width * mean + square * centre) / (n * width + square)
        rest = np.nansum((own - place) ** 2, axis=0)
        square = (rate + rest / 2) / (n / 2 + shape - 1)
        moved = np.abs(place - before[0]).max() + np.abs(square - before[1]).max()
        if moved <= _CLOSE * (1 + np.abs(place).max() + square.max()):
            break
    return place, np.sqrt(square)
