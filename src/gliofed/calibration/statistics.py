"""Requests to sites about their calibration cases, and the statistics that they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from gliofed.calibration.probability_bins import Counts
from gliofed.calibration.scaling import FitPosition, ProbabilityScaling
from gliofed.evaluation.logistic_regression import LogisticSums

RequestStep = Literal["count", "scale", "limit"]
Cells = tuple[tuple[tuple[int, ...], ...], ...]
"""As `joint_decision.cell_counts`: (2, 2, 3)."""


@dataclass(frozen=True)
class StatisticsRequest:
    """One request to every site, about its calibration cases of one model.

    step: "count": cases and their probabilities; "scale": the sums of some markers' fits at the
    parameters `places`; "limit": counts by confidence, calibrated by `scalings` and `cells`.
    Markers are named by id.
    """

    step: RequestStep
    places: Mapping[str, FitPosition] = field(default_factory=dict)
    scalings: Mapping[str, ProbabilityScaling] = field(default_factory=dict)
    cells: Cells | None = None


@dataclass(frozen=True)
class SiteStatistics:
    """One site's statistics, all of which add across sites; empty where the step needs none.

    true_classes: by marker (classes, BINS), see `conformal.true_class_counts`. cells: (2, 2, 3),
    see `joint_decision.cell_counts`. suppressed: markers suppressed for too few cases of a class;
    not_finite: by marker the cases excluded since a probability is not finite. sums: of the
    requested fits. confidences: by marker (2, BINS), see `selective.confidence_counts`.
    """

    true_classes: Mapping[str, Counts] = field(default_factory=dict)
    cells: Counts | None = None
    suppressed: tuple[str, ...] = ()
    not_finite: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, LogisticSums] = field(default_factory=dict)
    confidences: Mapping[str, Counts] = field(default_factory=dict)

    def classes(self, marker: str) -> tuple[int, ...]:
        """Calibration cases of each class."""
        return tuple(self.true_classes[marker].sum(1).tolist())


StatisticsExchange = Callable[[StatisticsRequest], Mapping[str, SiteStatistics]]
"""Sends a request to the sites; returns the statistics by site name."""
