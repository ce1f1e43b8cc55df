"""Logistic regression by sums is that of the pooled cases."""

import functools

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from gliofed.evaluation.logistic_regression import class_probabilities, fit_logistic, logistic_sums


def made_up(n: int, classes: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    features = np.column_stack([np.ones(n), rng.normal(size=(n, 3))])
    truth = (features[:, 1] + rng.logistic(size=n) > 0).astype(int)
    return features, truth + (rng.random(n) < 0.4) * (classes == 3) * truth


def by_sites(parts):
    def ask(coefficients):
        return functools.reduce(
            lambda a, b: a + b, [logistic_sums(coefficients, *p) for p in parts]
        )

    return ask


@pytest.mark.parametrize("classes", [2, 3])
def test_sites_together_fit_what_scikit_learn_fits_on_the_pooled_cases(classes) -> None:
    features, truth = made_up(200, classes)
    parts = [(features[a:b], truth[a:b]) for a, b in ((0, 7), (7, 90), (90, 200), (200, 200))]
    ridge = np.array([0.0, 0.5, 0.5, 0.5])
    found = fit_logistic(by_sites(parts), np.zeros((1 if classes == 2 else 3, 4)), ridge)
    peer = LogisticRegression(C=2.0, tol=1e-12, max_iter=10_000).fit(features[:, 1:], truth)
    assert found.converged
    assert found.n == 200
    assert class_probabilities(found.coefficients, features) == pytest.approx(
        peer.predict_proba(features[:, 1:]), abs=1e-6
    )
    pooled = fit_logistic(
        by_sites([(features, truth)]), np.zeros((1 if classes == 2 else 3, 4)), ridge
    )
    assert found.coefficients == pytest.approx(pooled.coefficients, abs=1e-9)


@pytest.mark.parametrize("rows", [1, 3])
def test_gradient_and_hessian_are_those_of_the_loss(rows) -> None:
    features, truth = made_up(30, max(rows, 2))
    rng = np.random.default_rng(1)
    place, offset = rng.normal(size=(rows, 4)), rng.normal(size=(30, rows))
    own = logistic_sums(place, features, truth, offset)
    for axis in range(place.size):
        step = np.zeros(place.size)
        step[axis] = 1e-5
        ahead, back = (
            logistic_sums(place + sign * step.reshape(place.shape), features, truth, offset)
            for sign in (1, -1)
        )
        assert (ahead.loss - back.loss) / 2e-5 == pytest.approx(own.gradient[axis], abs=1e-6)
        slope = (ahead.gradient - back.gradient) / 2e-5
        assert slope == pytest.approx(own.hessian[axis], abs=1e-6)


def test_separated_classes_have_no_fit_without_a_ridge_and_one_with_it() -> None:
    features = np.column_stack([np.ones(6), [-3, -2, -1, 1, 2, 3]])
    truth = np.array([0, 0, 0, 1, 1, 1])
    ask = by_sites([(features, truth)])
    assert not fit_logistic(ask, np.zeros((1, 2))).converged
    held = fit_logistic(ask, np.zeros((1, 2)), ridge=np.array([0, 1.0]))
    peer = minimize(
        lambda b: (
            np.logaddexp(0, -(2 * truth - 1) * (b[0] + b[1] * features[:, 1])).sum() + b[1] ** 2 / 2
        ),
        [0, 0],
    )
    assert held.converged
    assert held.coefficients[0] == pytest.approx(peer.x, abs=1e-4)


def test_without_a_case_the_start_is_returned_as_no_fit() -> None:
    features, truth = made_up(30, 2)
    start = np.full((1, 4), 0.5)
    none = fit_logistic(by_sites([(features[:0], truth[:0])]), start)
    assert (none.n, none.converged) == (0, False)
    assert none.coefficients.tolist() == start.tolist()
