"""A site's half of the calibration: from its calibration cases to sums."""

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
    """One site's calibration cases, and what it answers of them: every answer adds across sites.

    min_count: a marker of which a class has from 1 to `min_count` - 1 cases is answered as if no
    case were known. Of few cases, counts by probability are hardly less than the probabilities
    themselves: they tell nobody's name, but how sure the model was of each case.
    """

    results: tuple[CaseResult, ...]
    min_count: int = 1

    def respond(self, request: StatisticsRequest) -> SiteStatistics:
        """The statistics for a request: all that leaves the site."""
        if request.step == "count":
            bad = {m: _known(self.results, m)[2] for m in BY_ID}
            return SiteStatistics(
                true_classes={m: true_class_counts(*self.known(m)) for m in BY_ID},
                cells=self._cells(),
                hidden=tuple(m for m in BY_ID if self.hidden(m)),
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
        """(n,) class indices and (n, classes) probabilities: what does not leave the site."""
        truth, found, _ = _known(self.results, marker)
        if self._too_few(truth, marker):
            return truth[:0], found[:0]
        return truth, found

    def hidden(self, marker: str) -> bool:
        """Whether the marker is left out for too few cases of a class."""
        return self._too_few(_known(self.results, marker)[0], marker)

    def _cells(self) -> Counts:
        counts = cell_counts([r.labels for r in self.results])
        few = ((counts > 0) & (counts < self.min_count)).any()
        return np.zeros(allowed_cells().shape, np.int64) if few else counts

    def _confidences(self, marker: str, seen: Probabilities) -> Counts:
        """seen: the marker's probabilities as they are shown, of `results` in their order."""
        truth, _ = self.known(marker)
        if not len(truth):
            return np.zeros((2, BINS), np.int64)
        found = seen[[i for i, r in enumerate(self.results) if _usable(r, marker)]]
        return confidence_counts(found.max(1), found.argmax(1) != truth)

    def _too_few(self, truth: ClassIndices, marker: str) -> bool:
        counts = np.bincount(truth, minlength=len(BY_ID[marker].classes))
        return bool(((counts > 0) & (counts < self.min_count)).any())


def local_exchange(sites: Mapping[str, CalibrationCases]) -> StatisticsExchange:
    """An exchange with sites whose cases are all on this machine.

    Raises ValueError where they are of several models.
    """
    models = {(r.model, r.seed, r.fold) for own in sites.values() for r in own.results}
    if len(models) > 1:
        raise ValueError(f"the answers are of {len(models)} models, expected one")
    return lambda request: {name: own.respond(request) for name, own in sites.items()}


def joint_decisions(
    scalings: Mapping[str, ProbabilityScaling],
    cells: Cells | None,
    own: Mapping[str, Probabilities],
) -> tuple[dict[str, Probabilities], Values]:
    """What is shown of n cases: marker to (n, classes); and the joint, (n, 2, 2, 3).

    own: the model's own probabilities, not scaled. Where one of the three of the joint is
    not finite there is none, NaN, and the others are shown as they were scaled.
    """
    scaled = {m: scalings[m].apply(p) for m, p in own.items()}
    chances = joint_probabilities(scaled, None if cells is None else np.array(cells))
    together = marginal_probabilities(chances)
    whole = np.isfinite(chances[:, 0, 0, 0])[:, None]
    return {
        m: np.where(whole, together[m], p) if m in together else p for m, p in scaled.items()
    }, chances


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
    """Truth and probabilities of the cases that can be used, and how many are not finite."""
    names = BY_ID[marker].classes
    known = [r for r in results if not isinstance(r.labels[marker], Unknown)]
    used = [r for r in known if _usable(r, marker)]
    truth = np.array([names.index(str(r.labels[marker])) for r in used], np.int64)
    found = np.array([r.probabilities[marker] for r in used], float).reshape(len(used), len(names))
    return truth, found, len(known) - len(used)
