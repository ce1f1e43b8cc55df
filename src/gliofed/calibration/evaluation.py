"""A calibration evaluated on cases that it was not fitted on.

There is one calibration for each seed and fold. It is fitted on the held-out cases of the training
sites and evaluated on the external cases. Figures are of the answers of all seeds together. The
unit of their intervals is the patient.
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
from gliofed.calibration.selective import (
    ConfidentPredictions,
    SelectiveRiskRow,
    selective_risk_rows,
)
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
"""Suffix of the model name for calibrated probabilities."""
ALL_GROUPS: Final = "all"
"""Site of rows over all sites, and class of rows over all classes."""
INTEGRATED_TYPE: Final = "cns5"
"""Used in place of a marker id for the integrated type."""
NO_HOLDOUT: Final = "no case of a training hospital was held out to calibrate on"


@dataclass(frozen=True)
class ScalingRow:
    """One marker's calibration in one seed and fold. n: calibration cases of each class, in the
    marker's order. slope, intercepts: see `calibration.scaling`. at_least: the threshold of each
    class for its set. limit: the confidence threshold; None rejects all.
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
    """Coverage of prediction sets for one class or all, at one site or all. target_coverage: 1 -
    alpha. value: with its 95 % interval; None where n is 0. size: mean number of classes in a set.
    single, empty: shares of the sets with one class, and none."""

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
    """Selective prediction at a confidence threshold: of n cases with known class, the share
    accepted (coverage), and the error rate among these with its 95 % interval. marker: its id, or
    INTEGRATED_TYPE, where a named type counts as accepted. target_risk: None for the type."""

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
    """Of the n cases whose true integrated type is `reference`, the share predicted as `predicted`:
    one of `calibration.cns5.OUTCOMES`."""

    model: str
    reference: str
    predicted: str
    n: int
    share: float


@dataclass(frozen=True)
class CalibrationEvaluation:
    """results: external results with calibrated probabilities, CALIBRATED_SUFFIX added to the model
    name. calibrations: by seed and fold. note: why the evaluation is empty; else empty."""

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
class CalibratedCase:
    """One external case: the model's result, and its calibrated prediction."""

    result: CaseResult
    answer: CalibratedPrediction


def evaluate_calibration(
    results: Sequence[CaseResult], model: str, config: CalibrationConfig, replicates: int
) -> CalibrationEvaluation:
    """Calibrate one model on its `holdout` results and evaluate it on its `external` results.

    Each seed and fold has its own calibration. A fold without a held-out case is omitted. If all
    folds are omitted, the evaluation is empty and its note gives the reason.
    """
    folds: dict[tuple[int, str], list[CaseResult]] = defaultdict(list)
    for result in results:
        if result.model == model:
            folds[result.seed, result.fold].append(result)
    fits: list[ScalingRow] = []
    calibrations: dict[tuple[int, str], Calibration] = {}
    cases: list[CalibratedCase] = []
    for (seed, fold), own in sorted(folds.items()):
        held = [r for r in own if r.role == "holdout"]
        if not held:
            continue
        found = fit_calibration(local_exchange(cases_by_site(held)), config)
        calibrations[seed, fold] = found
        fits += scaling_rows(found, model, seed, fold)
        cases += calibrated_cases(found, [r for r in own if r.role == "external"])
    order = {id(r): place for place, r in enumerate(results)}
    cases.sort(key=lambda t: order[id(t.result)])  # in input order, so that scores can be paired
    why = "no external case was predicted" if fits else NO_HOLDOUT
    evaluation = CalibrationEvaluation(
        model, config, (), tuple(fits), (), (), (), (), calibrations, why
    )
    return with_figures(evaluation, cases, replicates) if cases else evaluation


def calibrated_cases(
    calibration: Calibration, results: Sequence[CaseResult]
) -> list[CalibratedCase]:
    """The results of a model, each with the prediction that the calibration makes of it."""
    if not results:
        return []
    answers = apply_calibration(calibration, model_probabilities(results))
    return list(map(CalibratedCase, results, answers))


def with_figures(
    evaluation: CalibrationEvaluation, cases: Sequence[CalibratedCase], replicates: int
) -> CalibrationEvaluation:
    """The same evaluation with every figure of these cases, at least one."""
    model, config = evaluation.model, evaluation.config
    name = model + CALIBRATED_SUFFIX
    return replace(
        evaluation,
        results=tuple(
            replace(t.result, model=name, probabilities=t.answer.probabilities) for t in cases
        ),
        sets=tuple(_set_rows(cases, model, config)),
        risks=tuple(_risk_rows(cases, model, replicates)),
        thresholds=(
            *_threshold_rows(cases, model, config),
            _integrated_type_threshold(cases, model),
        ),
        integrated_types=_type_rows(cases, model),
        note="",
    )


def cases_by_site(results: Iterable[CaseResult]) -> Mapping[str, CalibrationCases]:
    """Results to calibrate on, by hospital."""
    sites: dict[str, list[CaseResult]] = defaultdict(list)
    for result in results:
        sites[result.site].append(result)
    return {name: CalibrationCases(tuple(own)) for name, own in sorted(sites.items())}


def scaling_rows(found: Calibration, model: str, seed: int, fold: str) -> list[ScalingRow]:
    """One scaling row a marker."""
    out = []
    for m in MARKERS:
        scaling, sets, limit = found.scalings[m.id], found.sets[m.id], found.thresholds[m.id]
        note = "; ".join(filter(None, (scaling.note, sets.note, limit.note, found.notes[m.id])))
        out.append(
            ScalingRow(
                model,
                seed,
                fold,
                m.id,
                scaling.kind,
                sets.n,
                scaling.slope,
                scaling.intercepts,
                sets.at_least,
                limit.at_least,
                note,
            )
        )
    return out


def _known(cases: Sequence[CalibratedCase], marker: Marker) -> list[CalibratedCase]:
    """Cases with a known class and finite probabilities."""
    return [
        t
        for t in cases
        if not isinstance(t.result.labels[marker.id], Unknown)
        and np.isfinite(t.answer.probabilities[marker.id]).all()
    ]


def _wrong(cases: Sequence[CalibratedCase], marker: Marker) -> NDArray[np.bool_]:
    """(n,) whether the likeliest class by calibrated probability is wrong."""
    predicted = [marker.classes[int(np.argmax(t.answer.probabilities[marker.id]))] for t in cases]
    return np.array(
        [s != t.result.labels[marker.id] for s, t in zip(predicted, cases, strict=True)]
    )


def _set_rows(
    cases: Sequence[CalibratedCase], model: str, config: CalibrationConfig
) -> Iterable[SetCoverageRow]:
    for marker in MARKERS:
        known = _known(cases, marker)
        for site in (ALL_GROUPS, *sorted({c.result.site for c in cases})):
            at_site = [c for c in known if site in (ALL_GROUPS, c.result.site)]
            for label in (ALL_GROUPS, *marker.classes):
                group = [c for c in at_site if label in (ALL_GROUPS, c.result.labels[marker.id])]
                empty = SetCoverageRow(
                    model,
                    site,
                    marker.id,
                    label,
                    1 - config.alpha,
                    0,
                    None,
                    None,
                    None,
                    None,
                    None,
                    None,
                    "no case",
                )
                yield _with_coverage(empty, group)


def _with_coverage(row: SetCoverageRow, group: Sequence[CalibratedCase]) -> SetCoverageRow:
    """The row with the figures of its cases; unchanged without a case."""
    if not group:
        return row
    sets = [c.answer.sets[row.marker] for c in group]
    sizes = np.array([len(s) for s in sets])
    hits = np.array([c.result.labels[row.marker] in s for c, s in zip(group, sets, strict=True)])
    n, value, low, high = _share([c.result for c in group], hits.astype(float))
    return replace(
        row,
        n=n,
        value=value,
        low=low,
        high=high,
        size=float(sizes.mean()),
        single=float((sizes == 1).mean()),
        empty=float((sizes == 0).mean()),
        note="",
    )


def _risk_rows(
    cases: Sequence[CalibratedCase], model: str, replicates: int
) -> Iterable[SelectiveRiskRow]:
    for marker in MARKERS:
        known = _known(cases, marker)
        predictions = ConfidentPredictions(
            [(c.result.patient, f"{c.result.site}/{c.result.case}") for c in known],
            np.array([max(c.answer.probabilities[marker.id]) for c in known], float),
            _wrong(known, marker),
        )
        yield from selective_risk_rows(model, marker.id, predictions, replicates)


def _threshold_rows(
    cases: Sequence[CalibratedCase], model: str, config: CalibrationConfig
) -> Iterable[ThresholdRow]:
    for marker in MARKERS:
        known = _known(cases, marker)
        accepted = np.array([c.answer.accepted[marker.id] for c in known], bool)
        row = ThresholdRow(model, marker.id, config.risk, 0, None, None, None, None, "no case")
        yield _with_errors(row, known, accepted, _wrong(known, marker))


def _integrated_type_threshold(cases: Sequence[CalibratedCase], model: str) -> ThresholdRow:
    """Coverage and error rate of the integrated type, for cases whose type follows from the labels.

    A type that the three markers cannot determine counts as rejected."""
    known = [c for c in cases if not isinstance(reference_type(c.result.labels), Unknown)]
    predicted = [c.answer.integrated_type.answer for c in known]
    reference = [reference_type(c.result.labels) for c in known]
    accepted = np.array([p != OUTCOMES[-1] for p in predicted], bool)
    wrong = np.array([p != r for p, r in zip(predicted, reference, strict=True)], bool)
    row = ThresholdRow(model, INTEGRATED_TYPE, None, 0, None, None, None, None, "no case")
    return _with_errors(row, known, accepted, wrong)


def _with_errors(
    row: ThresholdRow,
    cases: Sequence[CalibratedCase],
    accepted: NDArray[np.bool_],
    wrong: NDArray[np.bool_],
) -> ThresholdRow:
    """The row with the figures of its cases; unchanged without a case."""
    n = len({(c.result.site, c.result.case) for c in cases})
    if not n:
        return row
    coverage = float(accepted.mean())
    if not accepted.any():
        return replace(row, n=n, coverage=coverage, note="no prediction was accepted")
    results = [c.result for c, yes in zip(cases, accepted, strict=True) if yes]
    _, rate, low, high = _share(results, wrong[accepted].astype(float))
    return replace(row, n=n, coverage=coverage, error_rate=rate, low=low, high=high, note="")


def _type_rows(cases: Sequence[CalibratedCase], model: str) -> tuple[IntegratedTypeRow, ...]:
    out = []
    for reference in OUTCOMES:
        own = [t for t in cases if reference_type(t.result.labels) == reference]
        n = len({(t.result.site, t.result.case) for t in own})
        for predicted in OUTCOMES if n else ():
            share = sum(t.answer.integrated_type.answer == predicted for t in own) / len(own)
            out.append(IntegratedTypeRow(model, reference, predicted, n, share))
    return tuple(out)


def _share(
    results: Sequence[CaseResult], hits: NDArray[np.float64]
) -> tuple[int, float, float | None, float | None]:
    """Number of cases, a fraction over all seeds, and Wilson's interval for the effective number of
    independent cases."""
    cases = [f"{r.site}/{r.case}" for r in results]
    sample = PredictionSample.named(cases, [0] * len(cases), [r.patient for r in results], 0)
    bounds = wilson_interval(sample, hits, np.ones(len(hits)))
    return sample.n, float(hits.mean()), bounds.low, bounds.high
