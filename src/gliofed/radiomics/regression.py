"""Logistic regression on features, fitted by sums that sites send; no case leaves its site.

Sums over all sites give: mean and spread of each feature; optionally the shared part of ComBat; the
products of features, hence the principal directions in which cases differ; and in these directions
the loss, its gradient and its Hessian (`evaluation.logistic_regression`). A ridge penalty never
moves coefficients out of these directions. With more features than cases the fit therefore equals
that on all features, and its Hessian is no larger than the number of cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import (
    LogisticFit,
    LogisticSums,
    class_probabilities,
    fit_logistic,
    logistic_sums,
)
from gliofed.evaluation.metrics.discrimination import ClassIndices
from gliofed.evaluation.results import CaseResult, Role
from gliofed.markers import MARKERS, Marker
from gliofed.radiomics.combat import SharedEffects, combat_sums, harmonise, shared_effects
from gliofed.radiomics.cross_validation import (
    FOLDS,
    INTERCEPT_RIDGE,
    RIDGES,
    best_ridge,
    fold_of,
)
from gliofed.radiomics.feature_table import PATIENT_NAMES, FeatureTable, age_and_sex
from gliofed.radiomics.standardisation import FeatureScaling, fit_feature_scaling, sum_over_sites
from gliofed.types import Unknown

RADIOMICS, HARMONISED, AGE_SEX = "radiomics", "radiomics_combat", "age_sex"
_RANK: Final = 1e-9
_CHANCE_95: Final = 1.959963984540054


@dataclass(frozen=True)
class MarkerRegression:
    """One marker's regression. R rows: 1 of two classes (logit of the second), else one a class.

    coefficients, errors: (R, 1 + F), the intercept first, then one a feature, for one standard
    deviation; errors are standard errors. ridge: the chosen penalty. cases: of each class. note:
    why there is no model; coefficients and errors are then NaN.
    """

    coefficients: Values
    errors: Values
    ridge: float
    cases: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class Harmonisation:
    """The shared part of ComBat, and the standardisation of age and sex, its covariates."""

    people: FeatureScaling
    shared: SharedEffects


@dataclass(frozen=True)
class RadiomicsModel:
    """markers: by marker id. harmonisation: None without ComBat."""

    name: str
    features: tuple[str, ...]
    scaling: FeatureScaling
    harmonisation: Harmonisation | None
    markers: Mapping[str, MarkerRegression]


@dataclass(frozen=True)
class Coefficient:
    """One coefficient of a model, with its 95 % interval. which: its class."""

    marker: str
    class_name: str
    feature: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _SiteRows:
    """One site's data for one marker: standardised features, class indices, folds."""

    features: Values
    truth: ClassIndices
    fold: ClassIndices

    def split(self, number: int) -> tuple[_SiteRows, _SiteRows]:
        """The cases outside a fold, and those in it."""
        inside = self.fold == number
        return self._pick(~inside), self._pick(inside)

    def _pick(self, rows: NDArray[np.bool_]) -> _SiteRows:
        return _SiteRows(self.features[rows], self.truth[rows], self.fold[rows])


def train_regressions(
    sites: Sequence[FeatureTable], name: str = RADIOMICS, harmonised: bool = False
) -> RadiomicsModel:
    """Fit one regression a marker on cases with a known label; the ridge by cross-validation.

    sites: the table of each; one table of several hospitals gives the same model. Raises DataError:
    no case, or features that differ between sites.
    """
    parts = [own for site in sites for own in site.by_site()]
    if not parts:
        raise DataError("no case to train on; give the features of at least one hospital")
    names = parts[0].names
    if any(p.names != names for p in parts):
        raise DataError(
            "the features differ between hospitals; extract them with the same settings"
        )
    shared = _harmonisation(parts) if harmonised else None
    values = [_harmonised(p, shared) for p in parts]
    scale = fit_feature_scaling(values)
    features = [scale.standardise(v) for v in values]
    markers = {m.id: _marker_model(parts, features, m) for m in MARKERS}
    return RadiomicsModel(name, names, scale, shared, markers)


def predict(model: RadiomicsModel, table: FeatureTable) -> Mapping[str, Values]:
    """Marker id to (n, classes) probabilities; NaN without a model.

    With harmonisation, each hospital's location and scale are estimated from its cases in this
    table, labelled or not: pass all of them. Raises DataError for other features.
    """
    if table.names != model.features:
        raise DataError(
            f"the table has other features than {model.name}; extract it with the same settings"
        )
    values = np.empty_like(table.values)
    for site in table.sites:
        rows = np.array([s.site == site for s in table.subjects], bool)
        values[rows] = _harmonised(table.pick(rows), model.harmonisation)
    wide = _with_ones(model.scaling.standardise(values))
    return {k: class_probabilities(m.coefficients, wide) for k, m in model.markers.items()}


def case_results(
    model: RadiomicsModel, table: FeatureTable, fold: str, role: Role, seed: int = 0
) -> tuple[CaseResult, ...]:
    """`predict` as case results with the truth, without a segmentation."""
    found = predict(model, table)
    return tuple(
        CaseResult(
            model=model.name,
            seed=seed,
            fold=fold,
            role=role,
            case=subject.case,
            site=subject.site,
            patient=subject.patient,
            labels=subject.labels,
            probabilities={k: tuple(float(p) for p in v[row]) for k, v in found.items()},
            dice=None,
            hd95_mm=None,
            volume_ml=None,
            volume_true_ml=None,
            person=subject.person,
            sequences=subject.sequences,
        )
        for row, subject in enumerate(table.subjects)
    )


def feature_coefficients(model: RadiomicsModel, marker: Marker) -> tuple[Coefficient, ...]:
    """The coefficients of a marker's model, largest first; empty without a model.

    For one standard deviation of a feature; of more than two classes, each against their mean.
    Constant features are omitted. The interval is that of the penalised coefficient (the posterior
    under a normal prior of variance 1 / ridge): correlated features share an effect, and each
    interval may include 0.
    """
    own = model.markers[marker.id]
    if own.note:
        return ()
    which = marker.classes[1:] if len(own.coefficients) == 1 else marker.classes
    found = [
        Coefficient(marker.id, c, f, b, b - _CHANCE_95 * e, b + _CHANCE_95 * e)
        for c, row, errors in zip(which, own.coefficients, own.errors, strict=True)
        for f, s, b, e in zip(
            model.features, model.scaling.scale, row[1:].tolist(), errors[1:].tolist(), strict=True
        )
        if s > 0
    ]
    return tuple(sorted(found, key=lambda w: -abs(w.value)))


def _harmonisation(parts: Sequence[FeatureTable]) -> Harmonisation:
    persons = [age_and_sex(p).values for p in parts]
    scale = fit_feature_scaling(persons)
    sums = [
        combat_sums(_imaging(p), scale.standardise(v)) for p, v in zip(parts, persons, strict=True)
    ]
    return Harmonisation(scale, shared_effects(sum_over_sites(sums)))


def _imaging(part: FeatureTable) -> Values:
    """The values with what is known of the patient as unknown: it is not harmonised."""
    patient = np.array([name in PATIENT_NAMES for name in part.names], bool)
    return np.where(patient, np.nan, part.values)


def _harmonised(part: FeatureTable, harmonisation: Harmonisation | None) -> Values:
    """One site's harmonised values; unknown age and sex count as the mean."""
    if harmonisation is None:
        return part.values
    known = harmonisation.people.standardise(age_and_sex(part).values)
    return harmonise(part.values, known, harmonisation.shared)


def _marker_model(
    tables: Sequence[FeatureTable], features: Sequence[Values], marker: Marker
) -> MarkerRegression:
    parts = [_part(t, f, marker) for t, f in zip(tables, features, strict=True)]
    classes = len(marker.classes)
    cases = _cases(parts, classes)
    shape = (_rows(classes), 1 + features[0].shape[1])
    if np.count_nonzero(cases) < 2:
        known = [c for c, n in zip(marker.classes, cases, strict=True) if n]
        note = f"only {known[0]} known" if known else "no case with a known label"
        none = np.full(shape, np.nan)
        return MarkerRegression(none, none, np.nan, tuple(cases), note)
    ridge = _choose(parts, classes)
    basis = _directions(parts)
    found = _fit(parts, basis, classes, ridge, np.zeros((shape[0], 1 + basis.shape[1])))
    return MarkerRegression(
        np.column_stack([found.coefficients[:, 0], found.coefficients[:, 1:] @ basis.T]),
        _errors(found, basis, ridge),
        ridge,
        tuple(cases),
    )


def _part(table: FeatureTable, features: Values, marker: Marker) -> _SiteRows:
    """The cases of a site with a known label."""
    labels = [s.labels[marker.id] for s in table.subjects]
    known = np.array([not isinstance(x, Unknown) for x in labels], bool)
    truth = [marker.classes.index(x) for x in labels if not isinstance(x, Unknown)]
    folds = [fold_of(s.patient) for s, yes in zip(table.subjects, known, strict=True) if yes]
    return _SiteRows(features[known], np.array(truth, np.int64), np.array(folds, np.int64))


def _cases(parts: Sequence[_SiteRows], classes: int) -> list[int]:
    counts = np.sum([np.bincount(p.truth, minlength=classes) for p in parts], axis=0)
    return [int(n) for n in counts]


def _choose(parts: Sequence[_SiteRows], classes: int) -> float:
    """The ridge with the lowest loss summed over held-out folds; the stronger one of ties.

    A fold is skipped if the training part lacks a class. Ridges are tried from the strongest down
    until the loss has risen twice. Without a fold, the strongest is used.
    """
    with_cases = np.count_nonzero(_cases(parts, classes))
    folds = []
    for number in range(FOLDS):
        rest, out = zip(*(p.split(number) for p in parts), strict=True)
        if np.count_nonzero(_cases(rest, classes)) == with_cases and sum(len(p.truth) for p in out):
            folds.append((rest, out, _directions(rest)))
    places = [np.zeros((_rows(classes), 1 + basis.shape[1])) for _, _, basis in folds]

    def loss(ridge: float) -> float:
        total = 0.0
        for number, (rest, out, basis) in enumerate(folds):
            places[number] = _fit(rest, basis, classes, ridge, places[number]).coefficients
            total += sum_over_sites(_sums(p, basis, places[number]) for p in out).loss
        return total

    return best_ridge(RIDGES, loss)


def _directions(parts: Sequence[_SiteRows]) -> Values:
    """(F, r) orthonormal principal directions in which cases differ from the mean, from sums of
    products."""
    products = sum_over_sites(p.features.T @ p.features for p in parts)
    width, cases = len(products), sum(len(p.truth) for p in parts)
    values, vectors = eigh(products, subset_by_index=(max(0, width - cases), width - 1))
    found: Values = vectors[:, values > _RANK * max(values[-1], 0.0)]
    return found


def _fit(
    parts: Sequence[_SiteRows], basis: Values, classes: int, ridge: float, start: Values
) -> LogisticFit:
    there = [(_with_ones(p.features @ basis), p.truth) for p in parts]

    def ask(coefficients: Values) -> LogisticSums:
        return sum_over_sites(logistic_sums(coefficients, f, t) for f, t in there)

    return fit_logistic(ask, start, np.array([INTERCEPT_RIDGE, *[ridge] * basis.shape[1]]))


def _sums(part: _SiteRows, basis: Values, coefficients: Values) -> LogisticSums:
    return logistic_sums(coefficients, _with_ones(part.features @ basis), part.truth)


def _errors(found: LogisticFit, basis: Values, ridge: float) -> Values:
    """(R, 1 + F). Outside the basis, the standard error is that of the prior."""
    width = 1 + basis.shape[1]
    unseen = np.maximum(1 - (basis**2).sum(1), 0) / ridge
    out = []
    for row in range(len(found.coefficients)):
        block = found.covariance[row * width :, row * width :][:width, :width]
        seen = np.einsum("fr,rs,fs->f", basis, block[1:, 1:], basis, optimize=True)
        out.append(np.sqrt([block[0, 0], *(seen + unseen)]))
    return np.array(out)


def _rows(classes: int) -> int:
    return 1 if classes == 2 else classes


def _with_ones(features: Values) -> Values:
    return np.column_stack([np.ones(len(features)), features])
