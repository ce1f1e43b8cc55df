"""A calibration fitted from the sums of sites, and its application to a case.

The model's probabilities are scaled, marker by marker. Then IDH, 1p/19q and grade are decided
together. Thresholds of confidence apply to the probabilities after that. Prediction sets are of the
model's own probabilities: their coverage holds only for a score that was not fitted on the same
cases.
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
    """Turns a model's probabilities into answers. By marker id: scalings, sets, thresholds.

    cells: of all sites, (2, 2, 3) as nested tuples, see `joint_decision.cell_counts`; None where no
    case has all three. notes: by marker, which sites left it out and cases that could not be used.
    """

    config: CalibrationConfig
    scalings: Mapping[str, ProbabilityScaling]
    sets: Mapping[str, PredictionSets]
    thresholds: Mapping[str, ConfidenceThreshold]
    cells: Cells | None
    notes: Mapping[str, str]


@dataclass(frozen=True)
class CalibratedPrediction:
    """One case. By marker id: probabilities: calibrated and free of contradiction. sets: the class
    names that are not ruled out. kept: whether the answer is confident enough for the risk wished.
    """

    probabilities: Mapping[str, tuple[float, ...]]
    sets: Mapping[str, tuple[str, ...]]
    accepted: Mapping[str, bool]
    integrated_type: IntegratedType


def fit_calibration(ask: StatisticsExchange, config: CalibrationConfig) -> Calibration:
    """The calibration of one model on cases that it was neither trained on nor is tested on.

    ask: sends a request to all sites. The result is that of the pooled cases: scalings but for
    rounding, sets and limits but for the grid of counts. No site, or no case: every scaling is the
    identity, every set holds all classes and nothing is kept.
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
    """For n cases. own: the model's own probabilities, (n, classes) of every marker."""
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
    """For one case's probabilities by the model, of every marker."""
    return apply_calibration(calibration, {m.id: np.array([own[m.id]], float) for m in MARKERS})[0]


def calibrated_result(calibration: Calibration, result: CaseResult) -> CaseResult:
    """The same answer with the probabilities that are shown, for scoring."""
    return replace(
        result, probabilities=apply_to_case(calibration, result.probabilities).probabilities
    )


def coverage_by_site(
    calibration: Calibration, marker: str, sites: Mapping[str, CalibrationCases]
) -> dict[str, SetCoverage]:
    """How often the sets held the true class on other cases: by site, as it is at each."""
    out = {}
    for name, own in sites.items():
        truth, found = own.known(marker)
        out[name] = set_coverage(calibration.sets[marker].sets(found), truth)
    return out


def _scalings(
    ask: StatisticsExchange, kind: ScalingKind, counted: Mapping[str, SiteStatistics]
) -> dict[str, ProbabilityScaling]:
    """All markers at once, so that sites are asked as often as the slowest of them needs."""
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
    few = [name for name, site in sorted(counted.items()) if marker in site.hidden]
    bad = sum(site.not_finite[marker] for site in counted.values())
    out = [f"without {name} (too few cases of a class)" for name in few]
    if bad:
        out.append(f"{bad} cases left out: a probability is not finite")
    return "; ".join(out)


def _cells(counted: Iterable[SiteStatistics]) -> Cells | None:
    """Of all sites; None where no case has all three."""
    nothing = np.zeros(allowed_cells().shape, np.int64)
    table = sum((site.cells for site in counted if site.cells is not None), nothing)
    return freeze_cells(table) if table.any() else None
