"""Late fusion: log odds of a network, of features of its mask, and of age and sex, summed.

Two regressions are fitted on the cases that trained the network: on features of the masks that it
predicts, and on age and sex. Of each, the part for a patient without the intercept is used: how far
these inputs move the log odds from those of the mean training case. The fused log odds are a
weighted sum of the three. The weights are a logistic regression of three coefficients on cases that
did not train the network: sums over cases, which add across sites. There is no intercept, since the
frequency of a class at the training hospitals does not hold elsewhere.

An unknown input counts as the mean and moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.calibration.calibrator import Calibration
from gliofed.calibration.scaling import LEAST
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import (
    LogisticFit,
    LogisticSums,
    class_probabilities,
    fit_side_by_side,
    fit_steps,
    logistic_sums,
)
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.markers import BY_ID
from gliofed.types import Person, Unknown

FUSED: Final = ("idh",)
"""The fused markers, each of two classes: those whose held-out cases were ranked better on every
data set (`docs/results.md`)."""
INPUTS: Final = ("age", "sex")
PARTS: Final = ("network", "mask", "person")
PRIOR_WEIGHT: Final = 0.5
"""Each weight without a held-out case. The three tell partly the same, and a network is surer of
itself at another hospital than it should be."""
PRIOR_DEVIATION: Final = 0.25
"""Standard deviation of the normal prior of each weight."""
MAX_DEVIATIONS: Final = 5.0
"""Values are clipped to this many standard deviations from the mean of the training cases."""


@dataclass(frozen=True)
class LinearPart:
    """A regression of two classes without its intercept, on F inputs.

    mean, scale: of each input over training cases; a scale of 0 leaves the input out. slopes:
    change of the log odds of the second class for one standard deviation. Raises ValueError for
    values that no fit gives.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    slopes: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.scale, *self.slopes)
        sizes = {len(self.names), len(self.mean), len(self.scale), len(self.slopes)}
        if len(sizes) > 1 or not np.isfinite(numbers).all() or min(self.scale, default=0) < 0:
            raise ValueError(f"no fusion has the values {numbers} of {len(self.names)} inputs")

    def moves(self, values: Values) -> Values:
        """(n, F) inputs, NaN where unknown, to (n,) changes of the log odds."""
        used = np.array(self.scale) > 0
        found = (values - np.array(self.mean)) / np.where(used, self.scale, 1.0)
        found = np.where(used & np.isfinite(found), found, 0.0)
        moved: Values = np.clip(found, -MAX_DEVIATIONS, MAX_DEVIATIONS) @ np.array(self.slopes)
        return moved


@dataclass(frozen=True)
class FusionInputs:
    """Of n cases, or of one for all rows. mask: (n, F) features of the predicted masks, NaN where
    unknown. persons: age and sex."""

    mask: Values
    persons: Sequence[Person]

    @property
    def people(self) -> Values:
        """(n, 2) age in years and sex (1 male, 0 female), NaN where unknown."""
        return np.array([_values(p) for p in self.persons], float).reshape(-1, len(INPUTS))


@dataclass(frozen=True)
class MarkerFusion:
    """How one marker of two classes is fused.

    mask, person: the two regressions. weights: of `PARTS`. cases: held-out cases of each class that
    the weights were fitted on. Raises ValueError for values that no fit gives.
    """

    marker: str
    mask: LinearPart
    person: LinearPart
    weights: tuple[float, ...]
    cases: tuple[int, ...]

    def __post_init__(self) -> None:
        right = len(self.weights) == len(PARTS) and len(self.cases) == 2
        if not right or not np.isfinite(self.weights).all() or len(self.person.names) != 2:
            raise ValueError(f"{self.marker}: no fusion has the weights {self.weights}")

    def parts(self, probabilities: Probabilities, inputs: FusionInputs) -> Values:
        """(n, 3) log odds of `PARTS`, before the weights."""
        odds = log_odds(probabilities)
        others = (self.mask.moves(inputs.mask), self.person.moves(inputs.people))
        return np.column_stack([odds, *(np.broadcast_to(o, odds.shape) for o in others)])

    def fuse(self, probabilities: Probabilities, inputs: FusionInputs) -> Probabilities:
        """(n, 2) probabilities of the network to fused ones; NaN stays NaN."""
        return class_probabilities(
            np.array([self.weights], float), self.parts(probabilities, inputs)
        )


@dataclass(frozen=True)
class Fusion:
    """What a model folder holds of a fusion. markers: by marker id. calibrations: of the fused
    probabilities, keyed as `models.folder.TrainedModel.calibrations`; may be empty."""

    markers: Mapping[str, MarkerFusion]
    calibrations: Mapping[int, Calibration]

    def fuse(
        self, probabilities: Mapping[str, Probabilities], inputs: FusionInputs
    ) -> dict[str, Probabilities]:
        """Every marker's (n, classes) probabilities, those of the fused markers fused."""
        return {
            m: self.markers[m].fuse(p, inputs) if m in self.markers else p
            for m, p in probabilities.items()
        }


@dataclass(frozen=True)
class WeightCases:
    """One site's held-out cases with a known class. parts: (n, 3), as `MarkerFusion.parts`. truth:
    (n,) class indices."""

    parts: Values
    truth: ClassIndices

    def sums(self, weights: Values) -> LogisticSums:
        """The site's sums at weights of shape (1, 3)."""
        return logistic_sums(weights, self.parts, self.truth)


def fit_weights(ask: Callable[[Values], LogisticSums]) -> tuple[float, ...]:
    """The weights of least loss and penalty. ask: the sums of all sites at weights, (1, 3).

    Without a case, each is `PRIOR_WEIGHT`.
    """
    fit = fit_side_by_side({"": weight_steps()}, lambda at: {"": ask(at[""])})[""]
    return tuple(fit.coefficients[0].tolist())


def weight_steps() -> Generator[Values, LogisticSums, LogisticFit]:
    """`fit_weights` as a generator: yields weights, (1, 3), and receives the sums of all sites."""
    start = np.full((1, len(PARTS)), PRIOR_WEIGHT)
    return fit_steps(start, PRIOR_DEVIATION**-2, centre=PRIOR_WEIGHT)


def known_inputs(person: Person) -> dict[str, str]:
    """Those of `INPUTS` that are known, each with its value as text."""
    values = zip(INPUTS, (person.age, person.sex), strict=True)
    return {
        name: value if isinstance(value, str) else f"{value:g}"
        for name, value in values
        if not isinstance(value, Unknown)
    }


def network_alone_text(fusion: Fusion | None) -> str:
    """What is lost where only the network of a model is used, with a space after it; empty without
    a fusion."""
    if fusion is None:
        return ""
    names = ", ".join(BY_ID[m].title for m in fusion.markers)
    return f"{names}: of the network alone, without the age and sex that the model folder joins. "


def log_odds(probabilities: Probabilities) -> Values:
    """(n,) log odds of the second of two classes; smaller probabilities are raised to `LEAST`."""
    logs = np.log(np.maximum(probabilities, LEAST))
    odds: Values = logs[:, 1] - logs[:, 0]
    return odds


def _values(person: Person) -> tuple[float, float]:
    """Age in years and sex (1 male, 0 female), NaN where unknown."""
    age = np.nan if isinstance(person.age, Unknown) else person.age
    sex = np.nan if isinstance(person.sex, Unknown) else float(person.sex == "M")
    return age, sex
