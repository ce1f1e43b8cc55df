"""Logistic regression from sums that add across sites: exact, whoever holds the cases.

Newton's method needs of the cases nothing but the loss, its gradient and its Hessian at the
present coefficients, and all three are sums over cases. A fit by sites, each of which answers
with its own sums, is therefore the fit of the pooled cases but for rounding (Wu et al. 2012,
JAMIA 19:758).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.metrics.discrimination import ClassIndices

MAX_STEPS: Final = 50
STEP_TOLERANCE: Final = 1e-6
"""A fit has converged where a step is this small beside the coefficients and 1. Where classes are
separated, steps do not become smaller, however flat the loss."""
_HALVINGS: Final = 40
_At = TypeVar("_At")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class LogisticSums:
    """Sums over cases at one set of coefficients. gradient: (P,), hessian: (P, P), of the loss,
    which is the negative log likelihood in nats."""

    n: int
    loss: float
    gradient: Values
    hessian: Values

    def __add__(self, other: LogisticSums) -> LogisticSums:
        return LogisticSums(
            self.n + other.n,
            self.loss + other.loss,
            self.gradient + other.gradient,
            self.hessian + other.hessian,
        )


@dataclass(frozen=True)
class LogisticFit:
    """coefficients: (rows, features), one row of two classes, else one a class; see `class_probabilities`.

    covariance: (rows * features, same), the inverse Hessian. loss: with the penalty. converged:
    False where no maximum was reached, as where classes are separated and there is no ridge.
    """

    coefficients: Values
    covariance: Values
    loss: float
    n: int
    steps: int
    converged: bool


def class_probabilities(
    coefficients: Values, features: Values, offset: Values | None = None
) -> Values:
    """(n, classes) probabilities. features: (n, F), a column of ones where there is an intercept.

    One row of coefficients: two classes, the logit of the second. More: a row a class, softmax.
    offset: (n, rows), added to the linear predictor.
    """
    return np.exp(_log_chances(coefficients, features, offset))


def logistic_sums(
    coefficients: Values, features: Values, truth: ClassIndices, offset: Values | None = None
) -> LogisticSums:
    """One site's sums. truth: (n,) class indices; n = 0 gives sums of 0."""
    rows = len(coefficients)
    classes = max(rows, 2)
    logs = _log_chances(coefficients, features, offset)
    free = slice(1, None) if rows == 1 else slice(None)
    found = np.exp(logs)[:, free]
    miss = found - np.eye(classes)[truth][:, free]
    spread = found[:, :, None] * (np.eye(rows) - found[:, None, :])
    hessian = np.block(
        [
            [features.T @ (spread[:, r, s, None] * features) for s in range(rows)]
            for r in range(rows)
        ]
    )
    return LogisticSums(
        len(truth),
        -float(logs[np.arange(len(truth)), truth].sum()),
        (miss.T @ features).ravel(),
        hessian,
    )


def fit_logistic(
    ask: Callable[[Values], LogisticSums],
    start: Values,
    ridge: float | Values = 0.0,
    centre: float = 0.0,
) -> LogisticFit:
    """The coefficients of the least loss plus ridge / 2 times their squared distance to `centre`.

    ask: the sums of all sites at given coefficients. The rest: see `fit_steps`.
    """
    steps = fit_steps(start, ridge, centre)
    return fit_side_by_side({"": steps}, lambda asked: {"": ask(asked[""])})[""]


def fit_steps(
    start: Values, ridge: float | Values = 0.0, centre: float = 0.0
) -> Generator[Values, LogisticSums, LogisticFit]:
    """`fit`, one question at a time: yields coefficients and is sent the sums of all sites there.

    start: (rows, features), for example zeros. ridge: one number, or one a feature (0 for an
    intercept). Damped Newton steps; of several minima, as softmax without a ridge has, the one
    nearest to the start. No case: the start.
    """
    weight = np.broadcast_to(np.asarray(ridge, float), start.shape).ravel()
    place = start.astype(float)

    def whole(sums: LogisticSums, at: Values) -> float:
        return sums.loss + float(weight @ (at.ravel() - centre) ** 2) / 2

    sums = yield place
    loss = whole(sums, place)
    for step in range(1, MAX_STEPS + 1):
        gradient = sums.gradient + weight * (place.ravel() - centre)
        curve = sums.hessian + np.diag(weight)
        move = np.linalg.lstsq(curve, -gradient, rcond=1e-12)[0]
        size = float(np.linalg.norm(move) / (1 + np.linalg.norm(place)))
        if size <= STEP_TOLERANCE:
            return _fit(place, curve, loss, sums.n, step, converged=sums.n > 0)
        for halving in range(_HALVINGS):
            there = place + (move / 2**halving).reshape(place.shape)
            ahead = yield there
            less = whole(ahead, there)
            if less < loss:
                break
        else:  # the loss has no more digits to lose
            return _fit(place, curve, loss, sums.n, step, converged=size <= 1e-3)
        place, sums, loss = there, ahead, less
    return _fit(place, curve, loss, sums.n, MAX_STEPS, converged=False)


def fit_side_by_side(
    fits: Mapping[str, Generator[_At, LogisticSums, _Found]],
    ask: Callable[[Mapping[str, _At]], Mapping[str, LogisticSums]],
) -> dict[str, _Found]:
    """Fits side by side: what each asks next goes into one question, until all have ended."""
    found: dict[str, _Found] = {}
    sums: Mapping[str, LogisticSums | None] = dict.fromkeys(fits)
    while sums:
        asked: dict[str, _At] = {}
        for name, own in sums.items():
            try:
                asked[name] = next(fits[name]) if own is None else fits[name].send(own)
            except StopIteration as end:
                found[name] = end.value
        sums = ask(asked) if asked else {}
    return found


def _fit(
    place: Values, curve: NDArray[np.float64], loss: float, n: int, steps: int, converged: bool
) -> LogisticFit:
    covariance: Values = np.asarray(np.linalg.pinv(curve, rcond=1e-12), np.float64)
    return LogisticFit(place, covariance, loss, n, steps, converged)


def _log_chances(coefficients: Values, features: Values, offset: Values | None) -> Values:
    scores = features @ coefficients.T
    if offset is not None:
        scores = scores + offset
    if coefficients.shape[0] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    logs: Values = log_softmax(scores, axis=1)
    return logs
