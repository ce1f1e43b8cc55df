"""A calibration fitted from the sums of sites, and its application to a case.

The model's probabilities are scaled, marker by marker. Then IDH, 1p/19q and grade are made
consistent (`joint_decision`). Confidence thresholds apply to the resulting probabilities.
Prediction sets use the model's own probabilities: their coverage holds only for a score that was
not fitted on the same cases.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gliofed.calibration.cns5 import IntegratedType, integrated_type
from gliofed.calibration.conformal import (
    PredictionSets,
    SetCoverage,
    fit_prediction_sets,
    set_coverage,
)
from gliofed.calibration.joint_decision import allowed_cells
from gliofed.calibration.probability_bins import BINS
from gliofed.calibration.scaling import FitPosition, ProbabilityScaling, ScalingKind, scaling_steps
from gliofed.calibration.selective import ConfidenceThreshold, fit_confidence_threshold
from gliofed.calibration.site_statistics import CalibrationCases, joint_decisions
from gliofed.calibration.statistics import (
    Cells,
    SiteStatistics,
    StatisticsExchange,
    StatisticsRequest,
)
from gliofed.calibration.statistics_json import freeze_cells
from gliofed.evaluation.logistic_regression import LogisticSums, fit_side_by_side
from gliofed.evaluation.metrics.discrimination import Probabilities
from gliofed.evaluation.results import CaseResult
from gliofed.markers import BY_ID, MARKERS
from gliofed.study import CalibrationConfig


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration. By marker id: scalings, sets, thresholds.

    cells: of all sites, (2, 2, 3) as nested tuples, see `joint_decision.cell_counts`; None if no
    case has all three. notes: by marker, the sites that omitted it and cases not used.
    """

    config: CalibrationConfig
    scalings: Mapping[str, ProbabilityScaling]
    sets: Mapping[str, PredictionSets]
    thresholds: Mapping[str, ConfidenceThreshold]
    cells: Cells | None
    notes: Mapping[str, str]


@dataclass(frozen=True)
class CalibratedPrediction:
    """One case, by marker id. probabilities: calibrated and consistent. sets: the class names that
    are not ruled out. kept: whether the confidence reaches the threshold.
    """

    probabilities: Mapping[str, tuple[float, ...]]
    sets: Mapping[str, tuple[str, ...]]
    accepted: Mapping[str, bool]
    integrated_type: IntegratedType


def fit_calibration(ask: StatisticsExchange, config: CalibrationConfig) -> Calibration:
    """Fit the calibration of one model on cases used neither for training nor for testing.

    ask: sends a request to all sites. The result equals that of the pooled cases: scalings up to
    rounding, sets and thresholds up to the grid of counts. Without a site or case, every scaling is
    the identity, every set contains all classes, and no prediction is accepted.
    """
    counted = ask(StatisticsRequest("count"))
    scalings = _scalings(ask, config.kind, counted)
    sets, notes = {}, {}
    for marker in BY_ID:
        nothing = np.zeros((len(BY_ID[marker].classes), BINS), np.int64)
        whole = sum((site.true_classes[marker] for site in counted.values()), nothing)
        sets[marker] = fit_prediction_sets(marker, whole, config.alpha, config.by_class)
        notes[marker] = _note(counted, marker)
    cells = _cells(counted.values())
    confident = ask(StatisticsRequest("limit", scalings=scalings, cells=cells))
    limits = {}
    for marker in BY_ID:
        each = (site.confidences[marker] for site in confident.values())
        limits[marker] = fit_confidence_threshold(
            marker, sum(each, np.zeros((2, BINS), np.int64)), config.risk
        )
    return Calibration(config, scalings, sets, limits, cells, notes)


def apply_calibration(
    calibration: Calibration, own: Mapping[str, Probabilities]
) -> tuple[CalibratedPrediction, ...]:
    """Calibrate n cases. own: the model's own probabilities, (n, classes) for every marker."""
    found, cells = joint_decisions(calibration.scalings, calibration.cells, own)
    sets = {m: calibration.sets[m].sets(p) for m, p in own.items()}
    kept = {m: calibration.thresholds[m].accepts(p.max(1)) for m, p in found.items()}
    return tuple(
        CalibratedPrediction(
            {m: tuple(p[i].tolist()) for m, p in found.items()},
            {m: tuple(np.array(BY_ID[m].classes)[rows[i]].tolist()) for m, rows in sets.items()},
            {m: bool(rows[i]) for m, rows in kept.items()},
            integrated_type(
                cells[i], {m: rows[i] for m, rows in sets.items()}, calibration.config.least
            ),
        )
        for i in range(len(cells))
    )


def apply_to_case(
    calibration: Calibration, own: Mapping[str, tuple[float, ...]]
) -> CalibratedPrediction:
    """Calibrate one case, from the model's probabilities for every marker."""
    return apply_calibration(calibration, {m.id: np.array([own[m.id]], float) for m in MARKERS})[0]


def calibrated_result(calibration: Calibration, result: CaseResult) -> CaseResult:
    """The same result with calibrated probabilities, for scoring."""
    return replace(
        result, probabilities=apply_to_case(calibration, result.probabilities).probabilities
    )


def fitted_for(calibrations: Mapping[int, Calibration], missing: int) -> int | None:
    """The key of the calibration for a case without `missing` sequences: the same number, else the
    next larger, else the largest. None without a calibration."""
    if not calibrations:
        return None
    enough = [n for n in calibrations if n >= missing]
    return min(enough, default=max(calibrations))


def coverage_by_site(
    calibration: Calibration, marker: str, sites: Mapping[str, CalibrationCases]
) -> dict[str, SetCoverage]:
    """Coverage of the prediction sets on other cases, by site."""
    out = {}
    for name, own in sites.items():
        truth, found = own.known(marker)
        out[name] = set_coverage(calibration.sets[marker].sets(found), truth)
    return out


def _scalings(
    ask: StatisticsExchange, kind: ScalingKind, counted: Mapping[str, SiteStatistics]
) -> dict[str, ProbabilityScaling]:
    """Fit all markers at once, so that the number of requests is that of the slowest fit."""
    fits = {
        marker: scaling_steps(
            marker, kind, {s: site.classes(marker) for s, site in counted.items()}
        )
        for marker in BY_ID
    }

    def sums(places: Mapping[str, FitPosition]) -> dict[str, LogisticSums]:
        responses = ask(StatisticsRequest("scale", places=places))
        return {
            m: functools.reduce(operator.add, (own.sums[m] for own in responses.values()))
            for m in places
        }

    return fit_side_by_side(fits, sums)


def _note(counted: Mapping[str, SiteStatistics], marker: str) -> str:
    few = [name for name, site in sorted(counted.items()) if marker in site.suppressed]
    bad = sum(site.not_finite[marker] for site in counted.values())
    out = [f"without {name} (too few cases of a class)" for name in few]
    if bad:
        out.append(f"{bad} cases excluded: a probability is not finite")
    return "; ".join(out)


def _cells(counted: Iterable[SiteStatistics]) -> Cells | None:
    """Cell counts of all sites; None if no case has all three."""
    nothing = np.zeros(allowed_cells().shape, np.int64)
    table = sum((site.cells for site in counted if site.cells is not None), nothing)
    return freeze_cells(table) if table.any() else None
