"""The site's part of a fusion: sums over its training and held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gliofed.calibration.fusion import FusionInputs, WeightCases
from gliofed.calibration.probability_bins import Counts
from gliofed.calibration.site_statistics import CalibrationCases
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import LogisticSums, logistic_sums
from gliofed.evaluation.metrics.discrimination import ClassIndices
from gliofed.evaluation.results import CaseResult
from gliofed.federated.fusion.sums import (
    CLASSES,
    COLUMNS,
    INPUT_NAMES,
    MARKER,
    FitPlace,
    FusionSums,
    SumsRequest,
)
from gliofed.markers import BY_ID
from gliofed.radiomics.cross_validation import FOLDS, fold_of
from gliofed.radiomics.standardisation import FeatureScaling, FeatureTotals, feature_totals
from gliofed.types import Case, Labels, Unknown

_UNKNOWN = -1
"""The class index of a case without a known class."""


@dataclass(frozen=True)
class SiteCases:
    """One site's cases for a fusion, which do not leave it.

    training: that trained the network. held_out: the network's results for cases held out at the
    site. mask: "site/id" of each of both to the (F,) features of its predicted mask. min_count:
    counts of cases from 1 to below it do not leave.
    """

    site: str
    training: Sequence[Case]
    held_out: Sequence[CaseResult]
    mask: Mapping[str, Values]
    min_count: int = 1


class FusionCases:
    """The sums of one site, which add across sites.

    Where a class has from 1 to below `min_count` cases, the marker counts as unknown in all. Where
    a fifth of the patients has so few, the site's patients are in one fifth, so that no difference
    of two sums is of so few. An input that so few cases have counts as unknown.
    """

    def __init__(self, cases: SiteCases) -> None:
        self._site, self._least = cases.site, cases.min_count
        self._results, self._mask = tuple(cases.held_out), cases.mask
        self._inputs, self._totals = _known_inputs(_inputs(cases), cases.min_count)
        self._training = self._labelled(
            [c.patient for c in cases.training],
            np.array([_class(c.labels) for c in cases.training], np.int64),
        )
        self._held_out = self._labelled(
            [r.patient for r in cases.held_out],
            np.array([_class_of_result(r) for r in cases.held_out], np.int64),
        )

    def _labelled(self, patients: Sequence[str], truth: ClassIndices) -> _Labelled:
        known = _permitted_classes(truth, self._least)
        folds = np.array([fold_of(p) for p in patients], np.int64)
        counts = _count(known, folds)
        if ((counts > 0) & (counts < self._least)).any():
            folds = np.full(len(patients), fold_of(self._site), np.int64)
        return _Labelled(known, folds)

    def respond(self, request: SumsRequest) -> FusionSums:
        """The sums for a request. Nothing else leaves the site."""
        if request.step == "count":
            return FusionSums(
                self._totals(self._inputs), self._training.counts, self._held_out.counts
            )
        if request.step == "spread":
            return FusionSums(self._totals((self._inputs - np.array(request.mean)) ** 2))
        if request.statistics is not None:
            fused = CalibrationCases(self._fused(request), self._least)
            return FusionSums(statistics=fused.respond(request.statistics))
        scaling = FeatureScaling(np.array(request.mean), np.array(request.scale))
        inputs = scaling.standardise(self._inputs)
        return FusionSums(fits=tuple(self._fit(request, place, inputs) for place in request.fits))

    def _fit(self, request: SumsRequest, place: FitPlace, inputs: Values) -> LogisticSums:
        at = np.array([place.coefficients])
        if place.part == "weights":
            rows = self._held_out.rows(place)
            truth = self._held_out.truth[rows]
            if not len(rows):
                return WeightCases(np.zeros((0, at.size)), truth).sums(at)
            own = np.array([self._results[i].probabilities[MARKER] for i in rows], float)
            some = request.fusion((0.0,) * at.size)
            return WeightCases(some.parts(own, self._fusion_inputs(rows)), truth).sums(at)
        rows = self._training.rows(place)
        features = inputs[rows][:, COLUMNS[place.part]]
        wide = np.column_stack([np.ones(len(rows)), features])
        return logistic_sums(at, wide, self._training.truth[rows])

    def _fused(self, request: SumsRequest) -> tuple[CaseResult, ...]:
        """Each held-out case, fused with the weights of its fold."""
        out = []
        for row, (result, fold) in enumerate(zip(self._results, self._held_out.folds, strict=True)):
            fusion = request.fusion(request.weights[fold])
            own = np.array([result.probabilities[MARKER]], float)
            fused = fusion.fuse(own, self._fusion_inputs([row]))[0]
            probabilities = {**result.probabilities, MARKER: tuple(fused.tolist())}
            out.append(replace(result, probabilities=probabilities))
        return tuple(out)

    def _fusion_inputs(self, rows: Sequence[int] | ClassIndices) -> FusionInputs:
        results = [self._results[i] for i in rows]
        mask = np.array([self._mask[f"{r.site}/{r.case}"] for r in results], float)
        return FusionInputs(mask, [r.person for r in results])


@dataclass(frozen=True)
class _Labelled:
    """truth: (n,) class indices, `_UNKNOWN` where the marker is unknown or counts as such. folds:
    (n,)."""

    truth: ClassIndices
    folds: ClassIndices

    @property
    def counts(self) -> Counts:
        return _count(self.truth, self.folds)

    def rows(self, place: FitPlace) -> ClassIndices:
        """The numbers of the cases that a fit is on."""
        used = self.truth != _UNKNOWN
        if place.fold is not None:
            used &= (self.folds == place.fold) == place.inside
        return np.flatnonzero(used)


@dataclass(frozen=True)
class _Totals:
    """Sums of inputs over known cases, as they may leave. counts: (F,), in place of the known."""

    counts: Values

    def __call__(self, values: Values) -> FeatureTotals:
        """Of (n, F) values. A mean stays as it is, and has no greater weight than its count."""
        found = feature_totals(values)
        return FeatureTotals(self.counts, found.mean * self.counts)


def _inputs(cases: SiteCases) -> Values:
    """(n, F) values of `INPUT_NAMES` of the training cases."""
    mask = np.array([cases.mask[str(c)] for c in cases.training], float)
    people = FusionInputs(mask, [c.person for c in cases.training]).people
    return np.column_stack([mask.reshape(len(people), -1), people]) if len(people) else _none()


def _none() -> Values:
    return np.zeros((0, len(INPUT_NAMES)))


def _known_inputs(inputs: Values, least: int) -> tuple[Values, _Totals]:
    """The inputs as they may be used, and what gives their sums.

    Neither the cases in which an input is known, nor those in which it is not, can be counted to
    from 1 to below `least`.
    """
    known = np.isfinite(inputs).sum(0)
    counts = np.array([_permitted_count(int(n), len(inputs), least) for n in known], float)
    return np.where(counts > 0, inputs, np.nan), _Totals(counts)


def _permitted_count(known: int, cases: int, least: int) -> int:
    """The count of `known` among `cases` that may leave, as `policy.enforce_counts` does."""
    if 0 < cases - known < least:
        known = cases - least
    return known if known >= least else 0


def _permitted_classes(truth: ClassIndices, least: int) -> ClassIndices:
    """Class indices as they may be used: unknown in all cases where a class has too few, and in
    more cases where too few are unknown."""
    found = truth.copy()
    while _class_counts(found).any() and 0 < (found == _UNKNOWN).sum() < least:
        found[np.flatnonzero(found == _class_counts(found).argmax())[-1]] = _UNKNOWN
    counts = _class_counts(found)
    return np.full_like(found, _UNKNOWN) if ((counts > 0) & (counts < least)).any() else found


def _class_counts(truth: ClassIndices) -> Counts:
    return np.bincount(truth[truth != _UNKNOWN], minlength=CLASSES)


def _count(truth: ClassIndices, folds: ClassIndices) -> Counts:
    """(FOLDS, CLASSES) cases with a known class."""
    counts = np.zeros((FOLDS, CLASSES), np.int64)
    known = truth != _UNKNOWN
    np.add.at(counts, (folds[known], truth[known]), 1)
    return counts


def _class(labels: Labels) -> int:
    value = labels[MARKER]
    return _UNKNOWN if isinstance(value, Unknown) else BY_ID[MARKER].classes.index(value)


def _class_of_result(result: CaseResult) -> int:
    """Unknown too where the network's probability is not finite."""
    finite = np.isfinite(result.probabilities[MARKER]).all()
    return _class(result.labels) if finite else _UNKNOWN
