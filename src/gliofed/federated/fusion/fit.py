"""The fit of a fusion from the sums of all sites.

The regressions are those of `radiomics.regression.train_regressions` on the training cases of all
sites together, the weights those of `calibration.fusion.fit_weights` on their held-out ones, up to
rounding. All fits are made side by side: a request has the next coefficients of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.fusion import Fusion, MarkerFusion, weight_steps
from gliofed.calibration.probability_bins import Counts
from gliofed.calibration.statistics import SiteStatistics, StatisticsRequest
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import (
    LogisticFit,
    LogisticSums,
    fit_side_by_side,
    fit_steps,
)
from gliofed.federated.fusion.sums import (
    COLUMNS,
    MARKER,
    NO_CASES,
    WIDTHS,
    FitPlace,
    FusionSums,
    Part,
    SumsExchange,
    SumsRequest,
)
from gliofed.markers import BY_ID
from gliofed.radiomics.cross_validation import FOLDS, INTERCEPT_RIDGE, RIDGES, best_ridge
from gliofed.radiomics.standardisation import feature_scaling, sum_over_sites
from gliofed.study import CalibrationConfig

NO_SITE: Final = "no site returned its sums"


@dataclass(frozen=True)
class FittedFusion:
    """fusion: None where nothing can be fused; reason: why."""

    fusion: Fusion | None
    reason: str = ""


def fit_fusion(ask: SumsExchange, config: CalibrationConfig | None) -> FittedFusion:
    """The fusion of one network, with the calibration of its probabilities.

    ask: sends a request to all sites. config: None where no case was held out: the fusion then has
    no calibration, and the weights of no case.
    """
    counted = ask(SumsRequest("count"))
    reason = _reason(counted.values())
    if reason:
        return FittedFusion(None, reason)
    mean = sum_over_sites(own.inputs for own in counted.values()).mean
    spread = ask(SumsRequest("spread", tuple(mean.tolist())))
    squares = sum_over_sites(own.inputs for own in spread.values())
    scale = feature_scaling(mean, squares).scale
    fits = _Fits(ask, tuple(mean.tolist()), tuple(scale.tolist()))
    fits = replace(
        fits, slopes=_slopes(fits, sum((c.training for c in counted.values()), NO_CASES))
    )
    every, *without = _weights(fits)
    held_out = sum((c.held_out for c in counted.values()), NO_CASES).sum(0)
    calibrate = SumsRequest(
        step="calibrate",
        mean=fits.mean,
        scale=fits.scale,
        slopes=fits.slopes,
        weights=tuple(without),
        statistics=StatisticsRequest("count"),
    )
    marker = replace(calibrate.fusion(every), cases=tuple(held_out.tolist()))
    return FittedFusion(_with_calibration(ask, calibrate, marker, config))


def _reason(counted: Collection[FusionSums]) -> str:
    """Why nothing can be fused; empty where it can."""
    if not counted:
        return NO_SITE
    if not sum_over_sites(own.inputs for own in counted).known[COLUMNS["person"]].any():
        return "no training case has an age or a sex"
    cases = sum((own.training for own in counted), NO_CASES).sum(0)
    present = [c for c, n in zip(BY_ID[MARKER].classes, cases, strict=True) if n]
    if len(present) == len(cases):
        return ""
    known = f"only {present[0]} known" if present else "no case with a known label"
    return f"{known} among training cases"


@dataclass(frozen=True)
class _Fit:
    """A regression to fit. fold: the fifth of the patients that it is without; None for none."""

    part: Part
    fold: int | None = None
    ridge: float = 0.0

    def place(self, coefficients: Values) -> FitPlace:
        return FitPlace(self.part, tuple(coefficients.ravel().tolist()), self.fold)


@dataclass(frozen=True)
class _Fits:
    """Fits by the sums of all sites, on inputs standardised by `mean` and `scale`."""

    ask: SumsExchange
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    slopes: tuple[float, ...] = ()

    def fit(
        self, fits: Mapping[_Fit, Generator[Values, LogisticSums, LogisticFit]]
    ) -> dict[_Fit, LogisticFit]:
        """All fits side by side."""

        def sums(at: Mapping[_Fit, Values]) -> dict[_Fit, LogisticSums]:
            places = [fit.place(coefficients) for fit, coefficients in at.items()]
            return dict(zip(at, self.sums(places), strict=True))

        return fit_side_by_side(fits, sums)

    def sums(self, places: Sequence[FitPlace]) -> list[LogisticSums]:
        """Of all sites, at each place."""
        request = SumsRequest("fit", self.mean, self.scale, self.slopes, fits=tuple(places))
        responses = self.ask(request).values()
        return [sum_over_sites(own.fits[k] for own in responses) for k in range(len(places))]


def _slopes(fits: _Fits, training: Counts) -> tuple[float, ...]:
    """Of all inputs, each regression with the ridge of the lowest loss over held-out fifths.

    training: (FOLDS, CLASSES). A fifth is skipped where it has no case, or the rest lacks a class.
    """
    rest = training.sum(0) - training
    folds = [k for k in range(FOLDS) if training[k].any() and rest[k].all()]
    planned = [_Fit(p, fold, r) for p in COLUMNS for fold in (None, *folds) for r in RIDGES]
    found = fits.fit({fit: _steps(fit) for fit in planned})
    crossed = [fit for fit in planned if fit.fold is not None]
    losses: dict[tuple[Part, float], float] = defaultdict(float)
    if crossed:
        places = [replace(f.place(found[f].coefficients), inside=True) for f in crossed]
        for fit, sums in zip(crossed, fits.sums(places), strict=True):
            losses[fit.part, fit.ridge] += sums.loss
    slopes: list[float] = []
    for part in COLUMNS:
        ridge = best_ridge(RIDGES, lambda r, part=part: losses[part, r])  # type: ignore[misc]
        slopes += found[_Fit(part, None, ridge)].coefficients[0, 1:].tolist()
    return tuple(slopes)


def _steps(fit: _Fit) -> Generator[Values, LogisticSums, LogisticFit]:
    width = WIDTHS[fit.part]
    return fit_steps(np.zeros((1, width)), np.array([INTERCEPT_RIDGE, *[fit.ridge] * (width - 1)]))


def _weights(fits: _Fits) -> tuple[tuple[float, ...], ...]:
    """Fitted on all held-out cases, then without each fifth of the patients."""
    planned = [_Fit("weights", fold) for fold in (None, *range(FOLDS))]
    found = fits.fit({fit: weight_steps() for fit in planned})
    return tuple(tuple(found[fit].coefficients[0].tolist()) for fit in planned)


def _with_calibration(
    ask: SumsExchange, request: SumsRequest, marker: MarkerFusion, config: CalibrationConfig | None
) -> Fusion:
    def statistics(own: StatisticsRequest) -> dict[str, SiteStatistics]:
        responses = ask(replace(request, statistics=own)).items()
        return {site: s.statistics for site, s in responses if s.statistics is not None}

    calibrations = {} if config is None else {0: fit_calibration(statistics, config)}
    return Fusion({MARKER: marker}, calibrations)
