"""Checks of a site's sums: the server refuses sums that no set of cases can give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from gliofed.evaluation.by_site_sums.sums import (
    MASK,
    SUM_TASKS,
    AucSums,
    MarkerSums,
    ScoreSums,
    ValueMoments,
    compared_classes,
)
from gliofed.markers import MARKERS, Marker

_ROUNDING: Final = 1e-9
"""Relative error that sums may have from rounding."""


def first_implausibility(sums: ScoreSums, most_cases: int) -> str:
    """The first impossible value as an error text; empty if all are plausible.

    sums: of one site and role, every number finite. most_cases: that a site may report.
    """
    return next(_faults(sums, most_cases), "")


def _faults(sums: ScoreSums, most_cases: int) -> Iterator[str]:
    if not 1 <= sums.min_count <= most_cases:
        yield f"the minimum count is {sums.min_count}, allowed are 1 to {most_cases}"
    if not 0 <= sums.cases <= most_cases:
        yield f"it reports {sums.cases} cases, allowed are 0 to {most_cases}"
    if not min(1, sums.cases) <= sums.patients <= sums.cases:
        yield f"it reports {sums.patients} patients for {sums.cases} cases"
    shown = {*SUM_TASKS} - {*sums.omitted}
    if not {*sums.omitted} <= {*SUM_TASKS} or {*sums.markers} != shown - {MASK}:
        yield "its markers, with the omitted ones, are not those of this version"
    if MASK not in shown and sums.mask != ValueMoments():
        yield "it reports a mask score and lists it as omitted"
    if not sums.cases and shown:
        yield f"it reports {sorted(shown)} of no case"
    yield from _moment_faults(MASK, sums.mask, sums.cases, 1.0)
    for marker in MARKERS:
        if marker.id in sums.markers:
            yield from _marker_faults(marker, sums.markers[marker.id], sums.cases)


def _moment_faults(name: str, found: ValueMoments, cases: int, most: float) -> Iterator[str]:
    """most: the largest value that one case can have; the smallest is 0."""
    if not 0 <= found.n <= cases:
        yield f"it reports {found.n} values of {name} for {cases} cases"
    more = 1 + _ROUNDING
    if not 0 <= found.sum <= most * found.n * more:
        yield f"the sum of {found.n} values of {name} is {found.sum:g}"
    least = found.sum**2 / found.n if found.n > 0 else 0.0
    if not least <= found.squares * more <= most * found.sum * more**2:
        yield f"the sum of squares of {name} is impossible: {found.squares:g}"


def _marker_faults(marker: Marker, own: MarkerSums, cases: int) -> Iterator[str]:
    name = marker.id
    if not len(own.classes) == len(own.correct) == len(marker.classes):
        yield f"{name} does not have {len(marker.classes)} classes"
    if min(own.classes) < 0 or sum(own.classes) > cases:
        yield f"it reports {list(own.classes)} cases of each class of {name} for {cases} cases"
    if not all(0 <= k <= n for k, n in zip(own.correct, own.classes, strict=True)):
        yield f"it reports {list(own.correct)} right of {list(own.classes)} cases of {name}"
    most = 1.0 if len(marker.classes) == 2 else 2.0
    yield from _moment_faults(f"{name}'s error", own.brier, cases, most)
    yield from _area_faults(name, own.auc, own.classes)


def _area_faults(name: str, areas: AucSums, classes: tuple[int, ...]) -> Iterator[str]:
    wide = len(compared_classes(len(classes)))
    if [wide] * (wide + 2) != [len(areas.won), len(areas.covariance), *map(len, areas.covariance)]:
        yield f"{name} does not have {wide} comparisons"
    for won, pairs in zip(areas.won, areas.pairs, strict=True):
        if not 0 <= won <= pairs or not (2 * won).is_integer():
            yield f"it reports {won:g} of {pairs} pairs won of {name}"
    found = np.array(areas.covariance)
    # each case wins from none to all of its pairs, and adds at most half the square of these
    bounds = [n * sum(classes) / 2 for n in areas.pairs]
    if not np.array_equal(found, found.T) or any(
        not 0 <= v <= b * (1 + _ROUNDING) for v, b in zip(np.diag(found), bounds, strict=True)
    ):
        yield f"the variance of the pairs won of {name} is impossible for these pairs"
    scale = math.fsum(bounds)
    if wide and np.linalg.eigvalsh(found).min() < -_ROUNDING * scale:
        yield f"the covariance of the pairs won of {name} is not a covariance matrix"
