"""All of it together: one calibration fitted from sites' sums, and its answer for a case.

A model's own probabilities are scaled, marker by marker; then IDH, 1p/19q and grade are decided
together; limits of confidence are for what is shown after that. Prediction sets are of the model's
own probabilities: their promise asks that the score was not fitted on the same cases.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gliofed.calibrate.abstain import Limit, fit_limit
from gliofed.calibrate.cns5 import IntegratedType, integrated_type
from gliofed.calibrate.conformal import Conformal, Coverage, coverage, fit_sets
from gliofed.calibrate.grid import BINS, Counts
from gliofed.calibrate.joint import allowed, joint, marginals_of
from gliofed.calibrate.scaling import Kind, Scaling, fit_scaling
from gliofed.calibrate.sites import SiteCases, raw
from gliofed.markers import BY_ID, MARKERS
from gliofed.score.discrimination import Probabilities
from gliofed.score.intervals import Values
from gliofed.score.logistic import FitSums
from gliofed.score.results import CaseResult
from gliofed.study import Wishes


@dataclass(frozen=True)
class Calibration:
    """What turns a model's probabilities into what is shown. By marker id: scalings, sets, limits.

    cells: of all sites, (2, 2, 3) as nested tuples, see `calibrate.joint`; None where no case has
    all three. notes: by marker, which sites left it out and cases that could not be used.
    """

    wishes: Wishes
    scalings: Mapping[str, Scaling]
    sets: Mapping[str, Conformal]
    limits: Mapping[str, Limit]
    cells: tuple[tuple[tuple[int, ...], ...], ...] | None
    notes: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """One case. By marker id: probabilities: calibrated and free of contradiction. sets: the class
    names that are not ruled out. kept: whether the answer is confident enough for the risk wished.
    """

    probabilities: Mapping[str, tuple[float, ...]]
    sets: Mapping[str, tuple[str, ...]]
    kept: Mapping[str, bool]
    integrated: IntegratedType


def fit_all(sites: Mapping[str, SiteCases], wishes: Wishes) -> Calibration:
    """The calibration of one model on cases that it was neither trained on nor is tested on.

    It is that of the pooled cases: scalings but for rounding, sets and limits but for the grid of
    counts. No site, or no case: every scaling is the identity, every set holds all classes and
    nothing is kept. Raises ValueError where the answers are of more than one model.
    """
    models = {(r.model, r.seed, r.fold) for own in sites.values() for r in own.results}
    if len(models) > 1:
        raise ValueError(f"the answers are of {len(models)} models, expected one")
    scalings, sets, notes = {}, {}, {}
    for marker in BY_ID:
        counts = {name: own.classes(marker) for name, own in sites.items()}
        ask = functools.partial(_sums, sites, marker)
        scalings[marker] = fit_scaling(marker, wishes.kind, counts, ask)
        nothing = np.zeros((len(BY_ID[marker].classes), BINS), np.int64)
        whole = sum((own.true_classes(marker) for own in sites.values()), nothing)
        sets[marker] = fit_sets(marker, whole, wishes.alpha, wishes.by_class)
        notes[marker] = _note(sites, marker)
    table = sum((own.cells() for own in sites.values()), np.zeros(allowed().shape, np.int64))
    cells = _frozen(table) if table.any() else None
    fitted = Calibration(wishes, scalings, sets, {}, cells, notes)
    seen = {name: shown(fitted, raw(own.results))[0] for name, own in sites.items()}
    limits = {}
    for marker in BY_ID:
        each = (own.confidences(marker, seen[name]) for name, own in sites.items())
        limits[marker] = fit_limit(marker, sum(each, np.zeros((2, BINS), np.int64)), wishes.risk)
    return replace(fitted, limits=limits)


def shown(
    calibration: Calibration, own: Mapping[str, Probabilities]
) -> tuple[dict[str, Probabilities], Values]:
    """What is shown of n cases: marker to (n, classes); and the joint, (n, 2, 2, 3).

    own: the model's own probabilities, as `calibrate.sites.raw` gives them. Where one of the three
    is not finite there is no joint, NaN, and the others are shown as they were scaled.
    """
    scaled = {m: calibration.scalings[m].apply(p) for m, p in own.items()}
    cells = joint(scaled, None if calibration.cells is None else np.array(calibration.cells))
    together = marginals_of(cells)
    whole = np.isfinite(cells[:, 0, 0, 0])[:, None]
    return {m: np.where(whole, together[m], p) if m in together else p
            for m, p in scaled.items()}, cells  # fmt: skip


def answers(calibration: Calibration, own: Mapping[str, Probabilities]) -> tuple[Answer, ...]:
    """For n cases. own: the model's own probabilities, (n, classes) of every marker."""
    found, cells = shown(calibration, own)
    sets = {m: calibration.sets[m].sets(p) for m, p in own.items()}
    kept = {m: calibration.limits[m].keeps(p.max(1)) for m, p in found.items()}
    return tuple(
        Answer(
            {m: tuple(p[i].tolist()) for m, p in found.items()},
            {m: tuple(np.array(BY_ID[m].classes)[rows[i]].tolist()) for m, rows in sets.items()},
            {m: bool(rows[i]) for m, rows in kept.items()},
            integrated_type(
                cells[i], {m: rows[i] for m, rows in sets.items()}, calibration.wishes.least
            ),
        )
        for i in range(len(cells))
    )


def answer(calibration: Calibration, own: Mapping[str, tuple[float, ...]]) -> Answer:
    """For one case's probabilities by the model, of every marker."""
    return answers(calibration, {m.id: np.array([own[m.id]], float) for m in MARKERS})[0]


def calibrated(calibration: Calibration, result: CaseResult) -> CaseResult:
    """The same answer with the probabilities that are shown, for scoring."""
    return replace(result, probabilities=answer(calibration, result.probabilities).probabilities)


def coverages(
    calibration: Calibration, marker: str, sites: Mapping[str, SiteCases]
) -> dict[str, Coverage]:
    """How often the sets held the true class on other cases: by site, as it is at each."""
    out = {}
    for name, own in sites.items():
        truth, found = own.known(marker)
        out[name] = coverage(calibration.sets[marker].sets(found), truth)
    return out


def _sums(sites: Mapping[str, SiteCases], marker: str, kind: Kind, coefficients: Values) -> FitSums:
    parts = [own.scaling(marker, kind, coefficients) for own in sites.values()]
    return functools.reduce(lambda a, b: a + b, parts)


def _note(sites: Mapping[str, SiteCases], marker: str) -> str:
    few = [name for name, own in sorted(sites.items()) if own.hidden(marker)]
    bad = sum(own.not_finite(marker) for own in sites.values())
    out = [f"without {name} (too few cases of a class)" for name in few]
    if bad:
        out.append(f"{bad} cases left out: a probability is not finite")
    return "; ".join(out)


def _frozen(table: Counts) -> tuple[tuple[tuple[int, ...], ...], ...]:
    return tuple(tuple(tuple(int(n) for n in row) for row in plane) for plane in table)
