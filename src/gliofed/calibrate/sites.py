"""A site's half of the calibration: from its calibration cases to sums, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gliofed.calibrate.abstain import confidence_counts
from gliofed.calibrate.conformal import true_counts
from gliofed.calibrate.grid import BINS, Counts
from gliofed.calibrate.joint import allowed, cell_counts
from gliofed.calibrate.scaling import Kind, scaling_sums
from gliofed.markers import BY_ID, MARKERS
from gliofed.score.discrimination import Index, Probabilities
from gliofed.score.intervals import Values
from gliofed.score.logistic import FitSums
from gliofed.score.results import CaseResult
from gliofed.types import Unknown


@dataclass(frozen=True)
class SiteCases:
    """One site's calibration cases, and what it answers of them: every answer adds across sites.

    smallest: a marker of which a class has from 1 to `smallest` - 1 cases is answered as if no
    case were known. Of few cases, counts by probability are hardly less than the probabilities
    themselves: they tell nobody's name, but how sure the model was of each case.
    """

    results: tuple[CaseResult, ...]
    smallest: int = 1

    def known(self, marker: str) -> tuple[Index, Probabilities]:
        """(n,) class indices and (n, classes) probabilities: what does not leave the site."""
        truth, found, _ = _known(self.results, marker)
        if self._too_few(truth, marker):
            return truth[:0], found[:0]
        return truth, found

    def classes(self, marker: str) -> tuple[int, ...]:
        """Cases of each class that are calibrated on."""
        truth, _ = self.known(marker)
        return tuple(int((truth == c).sum()) for c in range(len(BY_ID[marker].classes)))

    def hidden(self, marker: str) -> bool:
        """Whether the marker is left out for too few cases of a class."""
        return self._too_few(_known(self.results, marker)[0], marker)

    def not_finite(self, marker: str) -> int:
        """Cases left out since a probability is not finite."""
        return _known(self.results, marker)[2]

    def scaling(self, marker: str, kind: Kind, coefficients: Values) -> FitSums:
        """For `fit_scaling`."""
        return scaling_sums(kind, coefficients, *self.known(marker))

    def true_classes(self, marker: str) -> Counts:
        """For `fit_sets`."""
        return true_counts(*self.known(marker))

    def cells(self) -> Counts:
        """For `joint`; nothing where a cell has from 1 to `smallest` - 1 cases."""
        counts = cell_counts([r.labels for r in self.results])
        few = ((counts > 0) & (counts < self.smallest)).any()
        return np.zeros(allowed().shape, np.int64) if few else counts

    def confidences(self, marker: str, shown: Mapping[str, Probabilities]) -> Counts:
        """For `fit_limit`. shown: the marker's probabilities as they will be shown, of `results`
        in their order."""
        rows = [i for i, r in enumerate(self.results) if _usable(r, marker)]
        truth, _ = self.known(marker)
        if not len(truth):
            return np.zeros((2, BINS), np.int64)
        found = shown[marker][rows]
        return confidence_counts(found.max(1), found.argmax(1) != truth)

    def _too_few(self, truth: Index, marker: str) -> bool:
        counts = np.bincount(truth, minlength=len(BY_ID[marker].classes))
        return bool(((counts > 0) & (counts < self.smallest)).any())


def raw(results: Sequence[CaseResult]) -> dict[str, Probabilities]:
    """The model's own probabilities: marker to (n, classes)."""
    out = {}
    for marker in MARKERS:
        rows = [r.probabilities[marker.id] for r in results]
        out[marker.id] = np.array(rows, float).reshape(len(results), len(marker.classes))
    return out


def _usable(result: CaseResult, marker: str) -> bool:
    known = not isinstance(result.labels[marker], Unknown)
    return known and bool(np.isfinite(result.probabilities[marker]).all())


def _known(results: Sequence[CaseResult], marker: str) -> tuple[Index, Probabilities, int]:
    """Truth and probabilities of the cases that can be used, and how many are not finite."""
    names = BY_ID[marker].classes
    known = [r for r in results if not isinstance(r.labels[marker], Unknown)]
    used = [r for r in known if _usable(r, marker)]
    truth = np.array([names.index(str(r.labels[marker])) for r in used], np.int64)
    found = np.array([r.probabilities[marker] for r in used], float).reshape(len(used), len(names))
    return truth, found, len(known) - len(used)
