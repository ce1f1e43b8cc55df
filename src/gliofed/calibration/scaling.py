"""Calibrated probabilities: a slope, and intercepts, on the logarithms of the model's own.

Temperature scaling has the slope alone (Guo et al. 2017, ICML, PMLR 70:1321). Platt scaling has an
intercept too (Platt 1999, in Advances in Large Margin Classifiers, MIT Press, 61-74); with more
than two classes, one for each but the first (Alexandari et al. 2020, ICML, PMLR 119:222, there
called bias-corrected). A loss with weights for rare classes, as in gliofed, shifts the
probabilities; an intercept corrects this, a slope cannot.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import log_softmax

from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import LogisticFit, LogisticSums, fit_steps
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.markers import BY_ID

ScalingKind = Literal["identity", "temperature", "platt"]
RIDGE: Final = 1.0
"""Penalty towards slope 1 and intercept 0, as of normal priors with standard deviation 1. It keeps
fits of separated or very small sets finite; a few dozen cases outweigh it."""
LEAST: Final = 1e-6
"""Smaller probabilities are raised to this; no calibration set here could distinguish them."""


@dataclass(frozen=True)
class ProbabilityScaling:
    """How one marker's probabilities are calibrated.

    slope: 1 / temperature, above 0. intercepts: one a class, the first 0. n: calibration cases.
    sites: those with such cases. note: why there is no scaling (kind "identity") or only a slope.
    """

    marker: str
    kind: ScalingKind
    slope: float
    intercepts: tuple[float, ...]
    n: int
    sites: tuple[str, ...]
    note: str = ""

    def apply(self, probabilities: Probabilities) -> Probabilities:
        """(n, classes), calibrated. "identity" returns its input; NaN stays NaN."""
        if self.kind == "identity":
            return probabilities
        scores = self.slope * _logs(probabilities) + np.array(self.intercepts)
        scaled: Probabilities = np.exp(log_softmax(scores, axis=1))
        return scaled


@dataclass(frozen=True)
class FitPosition:
    """Current parameters of a fit: the slope less 1, then for "platt" the intercepts but the
    first."""

    kind: ScalingKind
    coefficients: tuple[float, ...]


def scaling_sums(
    at: FitPosition, truth: ClassIndices, probabilities: Probabilities
) -> LogisticSums:
    """One site's sums at given parameters.

    truth: (n,), probabilities: (n, classes), finite. n = 0 gives sums of 0. It is a softmax
    regression in which each class has its own features.
    """
    logs = _logs(probabilities)
    cases, classes = logs.shape
    features = logs[:, :, None]
    if at.kind == "platt":
        ones = np.broadcast_to(np.eye(classes)[:, 1:], (cases, classes, classes - 1))
        features = np.concatenate([features, ones], axis=2)
    found = log_softmax(logs + features @ np.array(at.coefficients), axis=1)
    class_probabilities = np.exp(found)
    each = np.arange(cases)
    expected = np.einsum("nc,ncp->np", class_probabilities, features)
    away = features - expected[:, None]
    return LogisticSums(
        cases,
        -float(found[each, truth].sum()),
        (expected - features[each, truth]).sum(0),
        np.einsum("nc,ncp,ncq->pq", class_probabilities, away, away, optimize=True),
    )


def scaling_steps(
    marker: str, kind: ScalingKind, counts: Mapping[str, tuple[int, ...]]
) -> Generator[FitPosition, LogisticSums, ProbabilityScaling]:
    """The scaling of the pooled cases, up to rounding: yields parameters, receives all sites' sums.

    counts: site to its cases of each class. Where a class has no case, "platt" becomes
    "temperature": its intercept would depend on the ridge alone. Without two classes nothing is
    requested or fitted ("identity"). Nothing is fitted either if the slope would not be above 0:
    then the model ranks the calibration cases no better than chance.
    """
    classes = BY_ID[marker].classes
    sums = [sum(own[c] for own in counts.values()) for c in range(len(classes))]
    sites = tuple(sorted(site for site, own in counts.items() if any(own)))
    absent = [name for name, n in zip(classes, sums, strict=True) if not n]

    def plainly(note: str) -> ProbabilityScaling:
        return ProbabilityScaling(
            marker, "identity", 1.0, (0.0,) * len(classes), sum(sums), sites, note
        )

    if kind == "identity" or not any(sums):
        return plainly("not requested" if any(sums) else "no case with a known label")
    if len(absent) == len(classes) - 1:
        present = next(name for name in classes if name not in absent)
        return plainly(f"only {present} among the calibration cases")
    note = ""
    if absent and kind == "platt":
        kind, note = "temperature", f"no {absent[0]} among the calibration cases: no intercepts"
    width = len(classes) if kind == "platt" else 1
    found = yield from _placed(kind, fit_steps(np.zeros((1, width)), RIDGE))
    slope, *shifts = (found.coefficients[0] + np.eye(width)[0]).tolist()
    if not found.converged:
        return plainly("the fit did not converge")
    if slope <= 0:
        return plainly("the model ranks the calibration cases no better than chance")
    intercepts = (0.0, *shifts) if shifts else (0.0,) * len(classes)
    return ProbabilityScaling(marker, kind, slope, intercepts, sum(sums), sites, note)


def _placed(
    kind: ScalingKind, steps: Generator[Values, LogisticSums, LogisticFit]
) -> Generator[FitPosition, LogisticSums, LogisticFit]:
    at = next(steps)
    while True:
        sums = yield FitPosition(kind, tuple(at[0].tolist()))
        try:
            at = steps.send(sums)
        except StopIteration as end:
            found: LogisticFit = end.value
            return found


def _logs(probabilities: Probabilities) -> Values:
    logs: Values = np.log(np.clip(probabilities, LEAST, 1.0))
    return logs
