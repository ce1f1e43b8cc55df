"""The sums that a site sends when a model is tested on its cases.

Every sum adds across sites, so that no average is averaged. Of the AUC, these are the pairs
of a case of a class with a case of another at the same site, how many of them the model ordered
rightly, and the variance of that number by DeLong et al. (1988, Biometrics 44:837), computed from
ranks as Sun and Xu do (2014, IEEE Signal Processing Letters 21:1389).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.evaluation.results import CaseResult, Role
from gliofed.markers import MARKERS, Marker
from gliofed.types import Unknown

MASK: Final = "mask"
SUM_TASKS: Final = (MASK, *(m.id for m in MARKERS))
_N = TypeVar("_N", int, float)
OmissionReason = Literal["few cases", "not finite"]
"""Why a site omits a task: fewer cases than the minimum count, or a probability that is not
finite."""


@dataclass(frozen=True)
class ValueMoments:
    """How many values, their sum and the sum of their squares."""

    n: int = 0
    sum: float = 0.0
    squares: float = 0.0

    def __add__(self, other: ValueMoments) -> ValueMoments:
        return ValueMoments(self.n + other.n, self.sum + other.sum, self.squares + other.squares)


@dataclass(frozen=True)
class AucSums:
    """Sums for the AUC; one entry a comparison of one class with the rest (see `compared_classes`).

    cases: in any pair. pairs: of a case of the class with another case of the same site. won:
    pairs in which the class's case has the higher probability, ties counting half. covariance:
    of `won`, comparisons by comparisons. reach: pairs times (cases / 2 - 1), needed for Newcombe's
    variance, see `intervals.analytic.auc_interval`.
    """

    cases: int
    pairs: tuple[int, ...]
    won: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    reach: tuple[float, ...]

    @classmethod
    def of(
        cls,
        classes: Sequence[int],
        won: Sequence[float],
        covariance: Sequence[Sequence[float]],
        repeats: int = 1,
    ) -> AucSums:
        """Sums of one site. classes: its number of cases of each class. repeats: number of models
        whose predictions for these cases are concatenated."""
        total = sum(classes)
        pairs = (
            tuple(classes[c] * (total - classes[c]) for c in compared_classes(len(classes)))
            * repeats
        )
        return cls(
            total if any(pairs) else 0,
            pairs,
            tuple(won),
            tuple(tuple(row) for row in covariance),
            tuple(n * (total - 2) / 2 if n else 0.0 for n in pairs),
        )

    def __add__(self, other: AucSums) -> AucSums:
        both = zip(self.covariance, other.covariance, strict=True)
        return AucSums(
            self.cases + other.cases,
            _added(self.pairs, other.pairs),
            _added(self.won, other.won),
            tuple(_added(a, b) for a, b in both),
            _added(self.reach, other.reach),
        )


@dataclass(frozen=True)
class MarkerSums:
    """classes: cases of each class. correct: of them, with that class as the likeliest. brier: of
    each case's squared error, as in `metrics.calibration.brier`."""

    classes: tuple[int, ...]
    correct: tuple[int, ...]
    brier: ValueMoments
    auc: AucSums

    def __add__(self, other: MarkerSums) -> MarkerSums:
        return MarkerSums(
            _added(self.classes, other.classes),
            _added(self.correct, other.correct),
            self.brier + other.brier,
            self.auc + other.auc,
        )


@dataclass(frozen=True)
class ScoreSums:
    """One model on one site's cases of one role, or on those of several sites together.

    min_count: smaller counts are suppressed. cases: 0 if suppressed.
    patients: whose cases they are. mask: of Dice, over the cases with an expert mask. omitted:
    "mask" or a marker, with the reason; every other marker is in `markers`.
    """

    min_count: int
    cases: int
    patients: int
    mask: ValueMoments
    markers: Mapping[str, MarkerSums]
    omitted: Mapping[str, OmissionReason]

    def __add__(self, other: ScoreSums) -> ScoreSums:
        """Sums of both; a task that one omits comes from the other alone."""
        shown = dict(self.markers)
        for name, own in other.markers.items():
            shown[name] = shown[name] + own if name in shown else own
        neither = sorted({*self.omitted} & {*other.omitted})
        return ScoreSums(
            max(self.min_count, other.min_count),
            self.cases + other.cases,
            self.patients + other.patients,
            self.mask + other.mask,
            shown,
            {t: min(self.omitted[t], other.omitted[t]) for t in neither},
        )


def compared_classes(classes: int) -> range:
    """The classes that are compared with the rest: of two, the second; of more, each."""
    return range(1, 2) if classes == 2 else range(classes)


def score_sums(results: Sequence[CaseResult]) -> dict[Role, ScoreSums]:
    """The sums of one site's results of one model, for each role that has any.

    Raises ValueError for several sites or models, and for a case with two results.
    """
    if len({(r.site, r.model, r.seed, r.fold) for r in results}) > 1:
        raise ValueError("the results are of more than one site or model")
    if len({r.case for r in results}) < len(results):
        raise ValueError("a case has two results")
    roles: dict[Role, list[CaseResult]] = defaultdict(list)
    for result in results:
        roles[result.role].append(result)
    return {role: _sums(own) for role, own in roles.items()}


def suppress_small_counts(sums: ScoreSums, min_count: int) -> ScoreSums:
    """The sums without the figures that rest on fewer than `min_count` cases.

    Omitted are each marker with 1 to `min_count` - 1 cases of a class, and the mask score of so few
    cases. With so few cases altogether, everything is omitted, the number of cases included.
    """
    if 0 < sums.cases < min_count:
        return ScoreSums(min_count, 0, 0, ValueMoments(), {}, dict.fromkeys(SUM_TASKS, "few cases"))
    omitted: dict[str, OmissionReason] = dict(sums.omitted)
    if 0 < sums.mask.n < min_count:
        omitted[MASK] = "few cases"
    for marker, marker_sums in sums.markers.items():
        if any(0 < n < min_count for n in marker_sums.classes):
            omitted[marker] = "few cases"
    return replace(
        sums,
        min_count=min_count,
        mask=ValueMoments() if MASK in omitted else sums.mask,
        markers={k: v for k, v in sums.markers.items() if k not in omitted},
        omitted=omitted,
    )


def _sums(results: Sequence[CaseResult]) -> ScoreSums:
    markers = {m.id: _marker_sums(results, m) for m in MARKERS}
    return ScoreSums(
        min_count=1,
        cases=len(results),
        patients=len({r.patient for r in results}),
        mask=_moments([r.dice for r in results if r.dice is not None]),
        markers={k: v for k, v in markers.items() if v is not None},
        omitted={k: "not finite" for k, v in markers.items() if v is None},
    )


def _marker_sums(results: Sequence[CaseResult], marker: Marker) -> MarkerSums | None:
    """None where a probability is not finite."""
    known = [r for r in results if not isinstance(r.labels[marker.id], Unknown)]
    names = marker.classes
    truth = np.array([names.index(str(r.labels[marker.id])) for r in known], np.int64)
    rows = [r.probabilities[marker.id] for r in known]
    found = np.array(rows, float).reshape(len(known), len(names))
    if not np.isfinite(found).all():
        return None
    errors = ((found - np.eye(len(names))[truth]) ** 2).sum(1) / (2 if len(names) == 2 else 1)
    hit = found.argmax(1) == truth
    return MarkerSums(
        classes=_counts(truth, len(names)),
        correct=_counts(truth[hit], len(names)),
        brier=_moments(errors.tolist()),
        auc=auc_sums(truth, found),
    )


def pair_wins(truth: ClassIndices, found: Probabilities) -> tuple[Probabilities, Probabilities]:
    """For each case: the pairs that it wins in each comparison, and the pairs that it is in.

    Both (comparisons, n). A case of the class wins where it is above another case; another case,
    where it is below one of the class. DeLong's structural components, not yet divided.
    """
    rows = compared_classes(found.shape[1])
    wins, most = np.zeros((2, len(rows), len(truth)))
    for row, c in enumerate(rows):
        own = truth == c
        wins[row, own] = _places(found[own, c], found[~own, c])
        wins[row, ~own] = own.sum() - _places(found[~own, c], found[own, c])
        most[row] = np.where(own, (~own).sum(), own.sum())
    return wins, most


def auc_sums(truth: ClassIndices, *answers: Probabilities) -> AucSums:
    """AUC sums of one site, with the covariance from each case's share of the pairs won.

    answers: probabilities of one model, or of several for the same cases; each model and class is
    one comparison. A class enters by the spread among its own cases, times their number: with two
    classes this is DeLong's variance. A class of one case has no measurable spread; it enters with
    the largest possible one, a quarter of the squared range (Popoviciu 1935, Mathematica 9:129).
    """
    classes = answers[0].shape[1]
    wins, most = np.concatenate([pair_wins(truth, found) for found in answers], axis=1)
    rows = [c for _ in answers for c in compared_classes(classes)]
    won = [wins[row, truth == c].sum() for row, c in enumerate(rows)]
    covariance = np.zeros((len(won), len(won)))
    for c in range(classes):
        members = truth == c
        if members.sum() == 1:
            covariance += most[:, members] @ most[:, members].T / 4
        elif members.any():
            covariance += members.sum() * np.atleast_2d(np.cov(wins[:, members]))
    even = (covariance + covariance.T) / 2
    counts, shares = _counts(truth, classes), [float(w) for w in won]
    return AucSums.of(counts, shares, even.tolist(), len(answers))


def _places(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of `others` each value is above, ties counting half."""
    ordered = np.sort(others)
    sides = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    halves: NDArray[np.float64] = sum(sides, np.zeros(len(values))) / 2
    return halves


def _counts(truth: ClassIndices, classes: int) -> tuple[int, ...]:
    return tuple(int((truth == c).sum()) for c in range(classes))


def _moments(values: Sequence[float]) -> ValueMoments:
    return ValueMoments(len(values), math.fsum(values), math.fsum(v * v for v in values))


def _added(one: tuple[_N, ...], other: tuple[_N, ...]) -> tuple[_N, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))
