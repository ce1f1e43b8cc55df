"""The choice of a ridge penalty by cross-validation over fifths of the patients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

RIDGES: Final = tuple(float(r) for r in np.logspace(4, 0, 9))
"""Ridge penalties, strongest first, for standardised features and a loss summed over cases."""
FOLDS: Final = 5
INTERCEPT_RIDGE: Final = 1e-6
"""Ridge on intercepts: negligible, but it makes the intercept of a class without cases finite."""


def fold_of(patient: str) -> int:
    """Index of the fold of a patient, from a hash of the name, so that all sites agree."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8], "big") % FOLDS


def best_ridge(ridges: Iterable[float], loss: Callable[[float], float]) -> float:
    """The ridge of the lowest loss, the stronger one of ties.

    ridges: the strongest first; tried until the loss has risen twice. loss: summed over held-out
    folds. Raises ValueError without a ridge.
    """
    best, least, risen = None, np.inf, 0
    for ridge in ridges:
        found = loss(ridge)
        if best is None or found < least:
            best, least = ridge, found
        else:
            risen += 1
        if risen == 2:
            break
    if best is None:
        raise ValueError("no ridge to choose from")
    return best
