"""What a calibration does on cases that it was not fitted on.

One calibration for each seed and fold, fitted on the cases that training sites kept back and tried
on the external ones. Figures are of the answers of all seeds together; the unit of their intervals
is the patient.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.calibrator import (
    CalibratedPrediction,
    Calibration,
    apply_calibration,
    fit_calibration,
)
from gliofed.calibration.cns5 import OUTCOMES, reference_type
from gliofed.calibration.selective import SelectiveRiskRow, selective_risk_rows
from gliofed.calibration.site_statistics import (
    CalibrationCases,
    local_exchange,
    model_probabilities,
)
from gliofed.evaluation.intervals.sample import PredictionSample, wilson_interval
from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS, Marker
from gliofed.study import CalibrationConfig
from gliofed.types import Unknown

CALIBRATED_SUFFIX: Final = ", calibrated"
"""What a model's name has after it where its probabilities are the calibrated ones."""
ALL_GROUPS: Final = "all"
"""The site of all sites together, and the class of all classes together."""
INTEGRATED_TYPE: Final = "cns5"
"""In place of a marker: the integrated type."""
NO_HOLDOUT: Final = "no case of a training hospital was kept back to calibrate on"


@dataclass(frozen=True)
class ScalingRow:
    """One marker's calibration in one seed and fold. n: calibration cases of each class, in the
    marker's order. slope, intercepts: see `calibrate.scaling`. at_least: the probability from
    which each class is in the set. limit: the least confidence that is kept; None keeps nothing.
    """

    model: str
    seed: int
    fold: str
    marker: str
    kind: str
    n: tuple[int, ...]
    slope: float
    intercepts: tuple[float, ...]
    at_least: tuple[float, ...]
    limit: float | None
    note: str


@dataclass(frozen=True)
class SetCoverageRow:
    """How often prediction sets held the true class, of cases of one class or all, at one site or
    all. asked: how often they should. value: with its 95 % interval; None where n is 0. size: mean
    number of classes in a set. single, empty: shares of the sets with one class, and none."""

    model: str
    site: str
    marker: str
    label: str
    target_coverage: float
    n: int
    value: float | None
    low: float | None
    high: float | None
    size: float | None
    single: float | None
    empty: float | None
    note: str = ""


@dataclass(frozen=True)
class ThresholdRow:
    """What keeping back the answers below a limit did: of the n cases of known class, the share
    that is kept, and of these the share of errors with its 95 % interval. marker: its id, or
    TYPE: there, an answer is kept where a type is named. wished: the errors hoped for; None of the
    type."""

    model: str
    marker: str
    target_risk: float | None
    n: int
    coverage: float | None
    error_rate: float | None
    low: float | None
    high: float | None
    note: str = ""


@dataclass(frozen=True)
class IntegratedTypeRow:
    """Of the n cases whose true integrated type is `reference`, the share that was called
    `apply_to_case`: one of `calibrate.cns5.OUTCOMES`."""

    model: str
    reference: str
    predicted: str
    n: int
    share: float


@dataclass(frozen=True)
class CalibrationEvaluation:
    """results: the external answers with the probabilities that are shown, the model's name
    followed by CALIBRATED. calibrations: by seed and fold. note: why nothing is here; empty where
    something is."""

    model: str
    config: CalibrationConfig
    results: tuple[CaseResult, ...]
    scalings: tuple[ScalingRow, ...]
    sets: tuple[SetCoverageRow, ...]
    risks: tuple[SelectiveRiskRow, ...]
    thresholds: tuple[ThresholdRow, ...]
    integrated_types: tuple[IntegratedTypeRow, ...]
    calibrations: Mapping[tuple[int, str], Calibration]
    note: str = ""


@dataclass(frozen=True)
class _CalibratedCase:
    """One external case: as the model answered it, and what is made of that."""

    result: CaseResult
    answer: CalibratedPrediction


def evaluate_calibration(
    results: Sequence[CaseResult], model: str, wishes: CalibrationConfig, replicates: int
) -> CalibrationEvaluation:
    """Of one model's answers: calibrate on `holdout` ones, seed by seed and fold by fold, and see.

    A fold without a case kept back is left out; where all are, the trial is empty and says why.
    """
    folds: dict[tuple[int, str], list[CaseResult]] = defaultdict(list)
    for result in results:
        if result.model == model:
            folds[result.seed, result.fold].append(result)
    fits: list[ScalingRow] = []
    made: dict[tuple[int, str], Calibration] = {}
    tried: list[_CalibratedCase] = []
    for (seed, fold), own in sorted(folds.items()):
        held = [r for r in own if r.role == "holdout"]
        if not held:
            continue
        found = fit_calibration(local_exchange(_by_site(held)), wishes)
        made[seed, fold] = found
        fits += scaling_rows(found, model, seed, fold)
        test = [r for r in own if r.role == "external"]
        tried += map(_CalibratedCase, test, apply_calibration(found, model_probabilities(test)))
    order = {id(r): place for place, r in enumerate(results)}
    tried.sort(key=lambda t: order[id(t.result)])  # as they came, so that scores can be paired
    if not tried:
        why = NO_HOLDOUT if not fits else "no external case was answered"
        return CalibrationEvaluation(model, wishes, (), tuple(fits), (), (), (), (), made, why)
    return CalibrationEvaluation(
        model,
        wishes,
        tuple(
            replace(t.result, model=model + CALIBRATED_SUFFIX, probabilities=t.answer.probabilities)
            for t in tried
        ),
        tuple(fits),
        tuple(_set_rows(tried, model, wishes)),
        tuple(_risk_rows(tried, model, replicates)),
        (*_kept_rows(tried, model, wishes), _named(tried, model)),
        _type_rows(tried, model),
        made,
    )


def _by_site(held: Iterable[CaseResult]) -> Mapping[str, CalibrationCases]:
    sites: dict[str, list[CaseResult]] = defaultdict(list)
    for result in held:
        sites[result.site].append(result)
    return {name: CalibrationCases(tuple(own)) for name, own in sorted(sites.items())}


def scaling_rows(found: Calibration, model: str, seed: int, fold: str) -> list[ScalingRow]:
    """One row a marker."""
    out = []
    for m in MARKERS:
        scaling, sets, limit = found.scalings[m.id], found.sets[m.id], found.thresholds[m.id]
        note = "; ".join(filter(None, (scaling.note, sets.note, limit.note, found.notes[m.id])))
        out.append(
            ScalingRow(model, seed, fold, m.id, scaling.kind, sets.n, scaling.slope,
                   scaling.intercepts, sets.at_least, limit.at_least, note)
        )  # fmt: skip
    return out


def _known(tried: Sequence[_CalibratedCase], marker: Marker) -> list[_CalibratedCase]:
    """Those whose class is known and whose probabilities are finite."""
    return [
        t
        for t in tried
        if not isinstance(t.result.labels[marker.id], Unknown)
        and np.isfinite(t.answer.probabilities[marker.id]).all()
    ]


def _wrong(tried: Sequence[_CalibratedCase], marker: Marker) -> NDArray[np.bool_]:
    """(n,) whether the likeliest class of what is shown is not the true one."""
    said = [marker.classes[int(np.argmax(t.answer.probabilities[marker.id]))] for t in tried]
    return np.array([s != t.result.labels[marker.id] for s, t in zip(said, tried, strict=True)])


def _set_rows(
    tried: Sequence[_CalibratedCase], model: str, wishes: CalibrationConfig
) -> Iterable[SetCoverageRow]:
    for marker in MARKERS:
        known = _known(tried, marker)
        for site in (ALL_GROUPS, *sorted({t.result.site for t in tried})):
            there = [t for t in known if site in (ALL_GROUPS, t.result.site)]
            for label in (ALL_GROUPS, *marker.classes):
                own = [t for t in there if label in (ALL_GROUPS, t.result.labels[marker.id])]
                yield _set_row(own, model, site, marker, label, 1 - wishes.alpha)


def _set_row(
    own: Sequence[_CalibratedCase], model: str, site: str, marker: Marker, label: str, asked: float
) -> SetCoverageRow:
    if not own:
        return SetCoverageRow(
            model, site, marker.id, label, asked, 0, None, None, None, None, None, None, "no case"
        )  # fmt: skip
    sizes = np.array([len(t.answer.sets[marker.id]) for t in own])
    hits = np.array([t.result.labels[marker.id] in t.answer.sets[marker.id] for t in own], float)
    n, value, low, high = _share([t.result for t in own], hits)
    size, single, empty = (
        float(sizes.mean()),
        float((sizes == 1).mean()),
        float((sizes == 0).mean()),
    )
    return SetCoverageRow(
        model, site, marker.id, label, asked, n, value, low, high, size, single, empty
    )  # fmt: skip


def _risk_rows(
    tried: Sequence[_CalibratedCase], model: str, replicates: int
) -> Iterable[SelectiveRiskRow]:
    for marker in MARKERS:
        own = _known(tried, marker)
        sure = np.array([max(t.answer.probabilities[marker.id]) for t in own], float)
        cases = [(t.result.patient, f"{t.result.site}/{t.result.case}") for t in own]
        yield from selective_risk_rows(
            model, marker.id, sure, _wrong(own, marker), cases, replicates
        )


def _kept_rows(
    tried: Sequence[_CalibratedCase], model: str, wishes: CalibrationConfig
) -> Iterable[ThresholdRow]:
    for marker in MARKERS:
        own = _known(tried, marker)
        kept = np.array([t.answer.accepted[marker.id] for t in own], bool)
        wrong = _wrong(own, marker)
        yield _kept(own, kept, wrong, model, marker.id, wishes.risk)


def _named(tried: Sequence[_CalibratedCase], model: str) -> ThresholdRow:
    """Of the cases whose integrated type the true labels tell: how many were named, and wrongly.

    What no case of the three markers can tell counts as kept back, rightly or not."""
    own = [t for t in tried if not isinstance(reference_type(t.result.labels), Unknown)]
    said = [t.answer.integrated_type.answer for t in own]
    true = [reference_type(t.result.labels) for t in own]
    kept = np.array([s != OUTCOMES[-1] for s in said], bool)
    wrong = np.array([s != t for s, t in zip(said, true, strict=True)], bool)
    return _kept(own, kept, wrong, model, INTEGRATED_TYPE, None)


def _kept(
    own: Sequence[_CalibratedCase],
    kept: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
    model: str,
    marker: str,
    wished: float | None,
) -> ThresholdRow:
    n = len({(t.result.site, t.result.case) for t in own})
    if not n:
        return ThresholdRow(model, marker, wished, 0, None, None, None, None, "no case")
    share = float(kept.mean())
    if not kept.any():
        return ThresholdRow(model, marker, wished, n, share, None, None, None, "no answer was kept")
    mine = [t.result for t, k in zip(own, kept, strict=True) if k]
    errors = wrong[kept].astype(float)
    _, value, low, high = _share(mine, errors)
    return ThresholdRow(model, marker, wished, n, share, value, low, high)


def _type_rows(tried: Sequence[_CalibratedCase], model: str) -> tuple[IntegratedTypeRow, ...]:
    out = []
    for reference in OUTCOMES:
        own = [t for t in tried if reference_type(t.result.labels) == reference]
        n = len({(t.result.site, t.result.case) for t in own})
        for said in OUTCOMES if n else ():
            share = sum(t.answer.integrated_type.answer == said for t in own) / len(own)
            out.append(IntegratedTypeRow(model, reference, said, n, share))
    return tuple(out)


def _share(
    results: Sequence[CaseResult], hits: NDArray[np.float64]
) -> tuple[int, float, float | None, float | None]:
    """Cases, and a share of their answers of all seeds with Wilson's interval: for as many
    independent cases as would have its variance over patients."""
    cases = [f"{r.site}/{r.case}" for r in results]
    sample = PredictionSample.named(cases, [0] * len(cases), [r.patient for r in results], 0)
    bounds = wilson_interval(sample, hits, np.ones(len(hits)))
    return sample.n, float(hits.mean()), bounds.low, bounds.high
