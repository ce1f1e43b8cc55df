"""Exact logistic regression from sums that add across sites.

Newton's method needs only the loss, its gradient and its Hessian at the current coefficients. All
three are sums over cases. A fit from the sums of several sites therefore equals the fit of the
pooled cases up to rounding (Wu et al. 2012, JAMIA 19:758).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from scipy.special import log_softmax

from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.metrics.discrimination import ClassIndices

MAX_STEPS: Final = 50
STEP_TOLERANCE: Final = 1e-6
"""A fit has converged where a step is this small beside the coefficients and 1. Where classes are
separated, steps do not become smaller, however flat the loss."""
_HALVINGS: Final = 40
_Name = TypeVar("_Name")
_Position = TypeVar("_Position")
_Result = TypeVar("_Result")


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
    """coefficients: (rows, features), one row of two classes, else one a class.

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
    return np.exp(_log_probabilities(coefficients, features, offset))


def logistic_sums(
    coefficients: Values, features: Values, truth: ClassIndices, offset: Values | None = None
) -> LogisticSums:
    """One site's sums. truth: (n,) class indices; n = 0 gives sums of 0."""
    rows = len(coefficients)
    classes = max(rows, 2)
    logs = _log_probabilities(coefficients, features, offset)
    free = slice(1, None) if rows == 1 else slice(None)
    probabilities = np.exp(logs)[:, free]
    residuals = probabilities - np.eye(classes)[truth][:, free]
    spread = probabilities[:, :, None] * (np.eye(rows) - probabilities[:, None, :])
    hessian = np.block(
        [
            [features.T @ (spread[:, r, s, None] * features) for s in range(rows)]
            for r in range(rows)
        ]
    )
    return LogisticSums(
        len(truth),
        -float(logs[np.arange(len(truth)), truth].sum()),
        (residuals.T @ features).ravel(),
        hessian,
    )


def fit_logistic(
    ask: Callable[[Values], LogisticSums],
    start: Values,
    ridge: float | Values = 0.0,
    centre: float = 0.0,
) -> LogisticFit:
    """The coefficients of the least loss plus ridge / 2 times their squared distance to `centre`.

    ask: returns the sums of all sites at given coefficients. Other arguments: see `fit_steps`.
    """
    steps = fit_steps(start, ridge, centre)
    return fit_side_by_side({"": steps}, lambda positions: {"": ask(positions[""])})[""]


def fit_steps(
    start: Values, ridge: float | Values = 0.0, centre: float = 0.0
) -> Generator[Values, LogisticSums, LogisticFit]:
    """`fit_logistic` as a generator: yields coefficients and receives the sums of all sites at
    them.

    start: (rows, features), for example zeros. ridge: one number, or one a feature (0 for an
    intercept). Damped Newton steps; of several minima, as softmax without a ridge has, the one
    nearest to the start. No case: the start.
    """
    weight = np.broadcast_to(np.asarray(ridge, float), start.shape).ravel()
    place = start.astype(float)

    def penalised_loss(sums: LogisticSums, at: Values) -> float:
        return sums.loss + float(weight @ (at.ravel() - centre) ** 2) / 2

    sums = yield place
    loss = penalised_loss(sums, place)
    for step in range(1, MAX_STEPS + 1):
        gradient = sums.gradient + weight * (place.ravel() - centre)
        curvature = sums.hessian + np.diag(weight)
        move = np.linalg.lstsq(curvature, -gradient, rcond=1e-12)[0]
        size = float(np.linalg.norm(move) / (1 + np.linalg.norm(place)))
        if size <= STEP_TOLERANCE:
            return LogisticFit(
                place, _covariance(curvature), loss, sums.n, step, converged=sums.n > 0
            )
        for halving in range(_HALVINGS):
            trial = place + (move / 2**halving).reshape(place.shape)
            trial_sums = yield trial
            trial_loss = penalised_loss(trial_sums, trial)
            if trial_loss < loss:
                break
        else:  # the loss has no more digits to lose
            return LogisticFit(
                place, _covariance(curvature), loss, sums.n, step, converged=size <= 1e-3
            )
        place, sums, loss = trial, trial_sums, trial_loss
    return LogisticFit(place, _covariance(curvature), loss, sums.n, MAX_STEPS, converged=False)


def fit_side_by_side(
    fits: Mapping[_Name, Generator[_Position, LogisticSums, _Result]],
    ask: Callable[[Mapping[_Name, _Position]], Mapping[_Name, LogisticSums]],
) -> dict[_Name, _Result]:
    """Run several fits at once: one request carries the next coefficients of all, until all have
    ended."""
    results: dict[_Name, _Result] = {}
    sums: Mapping[_Name, LogisticSums | None] = dict.fromkeys(fits)
    while sums:
        positions: dict[_Name, _Position] = {}
        for name, fit_sums in sums.items():
            try:
                positions[name] = (
                    next(fits[name]) if fit_sums is None else fits[name].send(fit_sums)
                )
            except StopIteration as end:
                results[name] = end.value
        sums = ask(positions) if positions else {}
    return results


def _covariance(curvature: Values) -> Values:
    return np.asarray(np.linalg.pinv(curvature, rcond=1e-12), np.float64)


def _log_probabilities(coefficients: Values, features: Values, offset: Values | None) -> Values:
    scores = features @ coefficients.T
    if offset is not None:
        scores = scores + offset
    if coefficients.shape[0] == 1:
        scores = np.concatenate([np.zeros_like(scores), scores], axis=1)
    logs: Values = log_softmax(scores, axis=1)
    return logs
