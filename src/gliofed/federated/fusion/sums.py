"""What the server asks of each site for a fusion, and the sums that a site returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from gliofed.calibration.fusion import FUSED, PARTS, LinearPart, MarkerFusion
from gliofed.calibration.probability_bins import Counts
from gliofed.calibration.statistics import SiteStatistics, StatisticsRequest
from gliofed.evaluation.logistic_regression import LogisticSums
from gliofed.radiomics.cross_validation import FOLDS, RIDGES
from gliofed.radiomics.input_names import AGE_SEX_NAMES, MASK_FEATURES
from gliofed.radiomics.standardisation import FeatureTotals

FusionStep = Literal["count", "spread", "fit", "calibrate"]
Part = Literal["mask", "person", "weights"]
(MARKER,) = FUSED
"""The marker that is fused, of two classes."""
CLASSES: Final = 2
INPUT_NAMES: Final = (*MASK_FEATURES, *AGE_SEX_NAMES)
COLUMNS: Final[Mapping[Part, slice]] = {
    "mask": slice(0, len(MASK_FEATURES)),
    "person": slice(len(MASK_FEATURES), len(INPUT_NAMES)),
}
"""The inputs of each regression on training cases."""
WIDTHS: Final[Mapping[Part, int]] = {
    "mask": 1 + len(MASK_FEATURES),
    "person": 1 + len(AGE_SEX_NAMES),
    "weights": len(PARTS),
}
"""Coefficients of each regression; the first two begin with the intercept."""
MOST_FITS: Final = len(COLUMNS) * len(RIDGES) * (FOLDS + 1)
LARGEST: Final = 1e4
"""Coefficients of a fit are not larger."""
NOTHING: Final = np.zeros(len(INPUT_NAMES))
NO_CASES: Final = np.zeros((FOLDS, CLASSES), np.int64)


@dataclass(frozen=True)
class FitPlace:
    """Coefficients of one regression at which sums are needed.

    part: "mask" and "person" are on training cases, "weights" on held-out ones. fold: None for all
    cases, else those outside this fifth of the patients, or with `inside` those in it.
    """

    part: Part
    coefficients: tuple[float, ...]
    fold: int | None = None
    inside: bool = False


@dataclass(frozen=True)
class SumsRequest:
    """One request to every site.

    step: "count": cases, and sums of the inputs `INPUT_NAMES` of training cases; "spread": their
    squared distances from `mean`; "fit": sums at `fits`; "calibrate": `statistics` of the held-out
    cases, each fused with the row of `weights` of its fold. Inputs are standardised by `mean` and
    `scale`; `slopes` are for one standard deviation. What a step does not need is empty.
    """

    step: FusionStep
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    slopes: tuple[float, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()
    fits: tuple[FitPlace, ...] = ()
    statistics: StatisticsRequest | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where something that the step needs is missing or has another size."""
        weighs = self.step == "calibrate" or any(f.part == "weights" for f in self.fits)
        sizes = {
            "mean": (self.mean, self.step != "count", len(INPUT_NAMES)),
            "scale": (self.scale, self.step in ("fit", "calibrate"), len(INPUT_NAMES)),
            "slopes": (self.slopes, weighs, len(INPUT_NAMES)),
            "weights": (self.weights, self.step == "calibrate", FOLDS),
        }
        for name, (values, needed, size) in sizes.items():
            if len(values) != (size if needed else 0):
                raise ValueError(f"{len(values)} {name} do not fit the step {self.step!r}")
        if (self.statistics is not None) != (self.step == "calibrate"):
            raise ValueError(f"statistics do not fit the step {self.step!r}")
        if bool(self.fits) != (self.step == "fit"):
            raise ValueError(f"{len(self.fits)} fits do not fit the step {self.step!r}")
        for fit in self.fits:
            if fit.part not in get_args(Part) or len(fit.coefficients) != WIDTHS[fit.part]:
                raise ValueError(f"{len(fit.coefficients)} coefficients of {fit.part!r}")

    def fusion(self, weights: tuple[float, ...]) -> MarkerFusion:
        """The fusion with these weights."""
        mask, person = (
            LinearPart(INPUT_NAMES[c], self.mean[c], self.scale[c], self.slopes[c])
            for c in COLUMNS.values()
        )
        return MarkerFusion(MARKER, mask, person, weights, (0, 0))


@dataclass(frozen=True)
class FusionSums:
    """One site's sums, all of which add across sites; empty where the step needs none.

    inputs: sums over the training cases in which each input is known. training, held_out: (FOLDS,
    CLASSES), cases with a known marker. fits: in the order of the request.
    """

    inputs: FeatureTotals = field(default_factory=lambda: FeatureTotals(NOTHING, NOTHING))
    training: Counts = field(default_factory=lambda: NO_CASES)
    held_out: Counts = field(default_factory=lambda: NO_CASES)
    fits: tuple[LogisticSums, ...] = ()
    statistics: SiteStatistics | None = None


SumsExchange = Callable[[SumsRequest], Mapping[str, FusionSums]]
"""Sends a request to the sites; returns the sums by site name."""
