"""The site's part of the calibration: sums over its calibration cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliofed.calibration.conformal import true_class_counts
from gliofed.calibration.joint_decision import (
    allowed_cells,
    cell_counts,
    joint_probabilities,
    marginal_probabilities,
)
from gliofed.calibration.probability_bins import BINS, Counts
from gliofed.calibration.scaling import ProbabilityScaling, scaling_sums
from gliofed.calibration.selective import confidence_counts
from gliofed.calibration.statistics import (
    Cells,
    SiteStatistics,
    StatisticsExchange,
    StatisticsRequest,
)
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.evaluation.results import CaseResult
from gliofed.markers import BY_ID, MARKERS
from gliofed.types import Unknown


@dataclass(frozen=True)
class CalibrationCases:
    """One site's calibration cases and their statistics, which add across sites.

    min_count: a marker of which a class has from 1 to `min_count` - 1 cases is reported as if no
    case had a label. With few cases, counts by probability reveal nearly the probability of each
    case.
    """

    results: tuple[CaseResult, ...]
    min_count: int = 1

    def respond(self, request: StatisticsRequest) -> SiteStatistics:
        """The statistics for a request. Nothing else leaves the site."""
        if request.step == "count":
            bad = {m: _known(self.results, m)[2] for m in BY_ID}
            return SiteStatistics(
                true_classes={m: true_class_counts(*self.known(m)) for m in BY_ID},
                cells=self._cells(),
                suppressed=tuple(m for m in BY_ID if self.suppressed(m)),
                not_finite={m: n if n >= self.min_count else 0 for m, n in bad.items()},
            )
        if request.step == "scale":
            places = request.places.items()
            return SiteStatistics(sums={m: scaling_sums(at, *self.known(m)) for m, at in places})
        seen, _ = joint_decisions(
            request.scalings, request.cells, model_probabilities(self.results)
        )
        return SiteStatistics(confidences={m: self._confidences(m, seen[m]) for m in BY_ID})

    def known(self, marker: str) -> tuple[ClassIndices, Probabilities]:
        """(n,) class indices and (n, classes) probabilities. They do not leave the site."""
        truth, found, _ = _known(self.results, marker)
        if self._too_few(truth, marker):
            return truth[:0], found[:0]
        return truth, found

    def suppressed(self, marker: str) -> bool:
        """Whether the marker is suppressed for too few cases of a class."""
        return self._too_few(_known(self.results, marker)[0], marker)

    def _cells(self) -> Counts:
        counts = cell_counts([r.labels for r in self.results])
        few = ((counts > 0) & (counts < self.min_count)).any()
        return np.zeros(allowed_cells().shape, np.int64) if few else counts

    def _confidences(self, marker: str, seen: Probabilities) -> Counts:
        """Right and wrong predictions by confidence. seen: calibrated probabilities, in the order
        of `results`."""
        truth, _ = self.known(marker)
        if not len(truth):
            return np.zeros((2, BINS), np.int64)
        found = seen[[i for i, r in enumerate(self.results) if _usable(r, marker)]]
        return confidence_counts(found.max(1), found.argmax(1) != truth)

    def _too_few(self, truth: ClassIndices, marker: str) -> bool:
        counts = np.bincount(truth, minlength=len(BY_ID[marker].classes))
        return bool(((counts > 0) & (counts < self.min_count)).any())


def local_exchange(sites: Mapping[str, CalibrationCases]) -> StatisticsExchange:
    """An exchange with sites whose cases are on this machine.

    Raises ValueError for results of several models.
    """
    models = {(r.model, r.seed, r.fold) for own in sites.values() for r in own.results}
    if len(models) > 1:
        raise ValueError(f"the results are of {len(models)} models, expected one")
    return lambda request: {name: own.respond(request) for name, own in sites.items()}


def joint_decisions(
    scalings: Mapping[str, ProbabilityScaling],
    cells: Cells | None,
    own: Mapping[str, Probabilities],
) -> tuple[dict[str, Probabilities], Values]:
    """Calibrated probabilities of n cases: marker to (n, classes); and the joint, (n, 2, 2, 3).

    own: the model's own probabilities, not scaled. If one of the three joint markers is not finite,
    the joint is NaN, and the others have their scaled values.
    """
    scaled = {m: scalings[m].apply(p) for m, p in own.items()}
    joint = joint_probabilities(scaled, None if cells is None else np.array(cells))
    together = marginal_probabilities(joint)
    finite = np.isfinite(joint[:, 0, 0, 0])[:, None]
    return {
        m: np.where(finite, together[m], p) if m in together else p for m, p in scaled.items()
    }, joint


def model_probabilities(results: Sequence[CaseResult]) -> dict[str, Probabilities]:
    """The model's own probabilities: marker to (n, classes)."""
    out = {}
    for marker in MARKERS:
        rows = [r.probabilities[marker.id] for r in results]
        out[marker.id] = np.array(rows, float).reshape(len(results), len(marker.classes))
    return out


def _usable(result: CaseResult, marker: str) -> bool:
    known = not isinstance(result.labels[marker], Unknown)
    return known and bool(np.isfinite(result.probabilities[marker]).all())


def _known(results: Sequence[CaseResult], marker: str) -> tuple[ClassIndices, Probabilities, int]:
    """Truth and probabilities of the usable cases, and the number that are not finite."""
    names = BY_ID[marker].classes
    known = [r for r in results if not isinstance(r.labels[marker], Unknown)]
    used = [r for r in known if _usable(r, marker)]
    truth = np.array([names.index(str(r.labels[marker])) for r in used], np.int64)
    found = np.array([r.probabilities[marker] for r in used], float).reshape(len(used), len(names))
    return truth, found, len(known) - len(used)
