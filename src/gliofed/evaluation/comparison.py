"""Compares two sources of predictions on the same cases: ranking and segmentation.

AUC: DeLong's paired test (DeLong et al. 1988, Biometrics 44:837), from ranks as Sun and Xu (2014,
IEEE Signal Processing Letters 21:1389); for more than two classes of the mean of each against the
rest, which is linear in the same components. Dice: the paired bootstrap of the mean. Each has a
second method: for the AUC the bootstrap, for Dice the signed-rank test.

With several seeds the AUC is the mean over seeds, and so are DeLong's components: the test is of
that mean, on patients, for the models as they were trained. It is not of averaged probabilities.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy.special import logit, ndtr

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.by_site_sums.sums import MASK
from gliofed.evaluation.intervals.analytic import Z_95
from gliofed.evaluation.intervals.bootstrap import Interval, Values, percentile_interval
from gliofed.evaluation.paired import (
    MIN_CASES_PER_CLASS,
    TASKS,
    PairedEstimate,
    PairedPredictions,
    auc_components,
    paired_estimate,
    paired_predictions,
    patient_variance,
    results_by_role,
    score_row,
    unpaired_reason,
)
from gliofed.evaluation.results import CaseResult, Role, ScoreGroup, ScoreRow
from gliofed.markers import MARKERS

BY_DELONG: Final = "DeLong 1988, paired"
BY_BOOTSTRAP: Final = "paired bootstrap over patients; p by inverting its percentile interval"
BY_RANKS: Final = "Wilcoxon 1945, signed ranks of patients; Hodges-Lehmann median difference"
BY_LIKELIHOOD: Final = "likelihood ratio of logistic models, 1 degree of freedom; Wald interval"
BY_CHANCE: Final = "bootstrap standard error, logit scale, against 0.5"
CHANCE: Final = "chance"
SECONDARY_METHOD: Final = {"auc": BY_BOOTSTRAP, "dice": BY_RANKS}
"""Secondary methods: no verdict uses them."""
RESAMPLES_PER_TEST: Final = 100
"""Resamples for each comparison of a family, at least: with fewer, the least possible p,
times the family's size, could not fall below 0.05."""
_NO_SPREAD: Final = 1e-14
_OF_ONE_SITE: Final = ("alone:", "personal:")


@dataclass(frozen=True)
class Comparison:
    """One source less another on the same cases, with its 95 % interval and two-sided p.

    model, other: models, or titles of other rankings of cases. n: cases. n_rarest_class: cases of
    the rarest class. p_holm: p corrected for its family of comparisons, see `holm_correction`.
    difference, low, high, p: None with the reason in `note`. metric: an id of
    `metrics.definitions`.
    """

    model: str
    other: str
    role: Role
    site: str
    task: str
    metric: str
    n: int
    n_rarest_class: int
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    method: str
    note: str = ""

    @property
    def is_primary(self) -> bool:
        """Whether it uses the metric's primary method; verdicts use only these."""
        return self.method != SECONDARY_METHOD.get(self.metric)


@dataclass(frozen=True)
class ComparedSources:
    """The two sources and the cases of a comparison; see `Comparison`."""

    model: str
    other: str
    role: Role
    site: str


@dataclass(frozen=True)
class CrossSiteMatrix:
    """Scores of every model at every site. cells: one row a model, one cell a column; n = 0 without
    predictions. No model is tested on its training cases."""

    task: str
    metric: str
    models: tuple[str, ...]
    columns: tuple[tuple[Role, str], ...]
    cells: tuple[tuple[ScoreRow, ...], ...]


def compare_models(
    results: Sequence[CaseResult], replicates: int, reference: str = "federated"
) -> tuple[Comparison, ...]:
    """Compare every other model with the reference: Dice and each marker's AUC, by both methods.

    Over all sites of a role together and, if there are several, at each. Holm's family is all
    comparisons of a role with the reference by first methods on one such group of cases; those by
    second methods are a family of their own. To compare two models only, pass the results of these
    two. The AUC is drawn `replicates` times, Dice DRAWS times the family's size where that is more.
    """
    groups: dict[tuple[Role, str], dict[str, list[CaseResult]]] = defaultdict(
        lambda: defaultdict(list)
    )
    sites = {
        role: {r.site for r in results if r.role == role} for role in {r.role for r in results}
    }
    for result in results:
        groups[result.role, ALL_SITES][result.model].append(result)
        if len(sites[result.role]) > 1:
            groups[result.role, result.site][result.model].append(result)
    out: list[Comparison] = []
    for (role, site), models in groups.items():
        if not models.keys() - {reference}:
            continue
        draws = dict.fromkeys(TASKS, replicates)
        draws[MASK] = max(replicates, RESAMPLES_PER_TEST * len(TASKS) * len(models))
        base = {
            t: paired_estimate(paired_predictions(models.get(reference, []), t), draws[t])
            for t in TASKS
        }
        rows = [
            row
            for model, model_results in models.items()
            if model != reference
            for task in TASKS
            for row in compare_pair(
                paired_estimate(paired_predictions(model_results, task), draws[task]),
                base[task],
                ComparedSources(model, reference, role, site),
            )
        ]
        out += correct_by_method(rows)
    return tuple(out)


def correct_by_method(rows: Sequence[Comparison]) -> list[Comparison]:
    """`holm_correction` of the primary methods' rows, then of the secondary methods' rows."""
    primary = [row for row in rows if row.is_primary]
    return holm_correction(primary) + holm_correction([r for r in rows if not r.is_primary])


def compare_pair(
    own: PairedEstimate, base: PairedEstimate, sources: ComparedSources
) -> tuple[Comparison, Comparison]:
    """By the primary method and by the secondary one, neither corrected.

    There is no difference if the sources have different cases, or one has no figure; the note gives
    the reason.
    """
    reason = unpaired_reason(own.predictions, base.predictions) or own.note or base.note
    methods: tuple[
        tuple[str, Callable[[PairedEstimate, PairedEstimate], _ComparisonResult]], ...
    ] = (
        ((BY_BOOTSTRAP, _by_bootstrap), (BY_RANKS, _by_ranks))
        if own.predictions.metric == "dice"
        else ((BY_DELONG, _by_delong), (BY_BOOTSTRAP, _by_bootstrap))
    )
    primary, secondary = (
        _comparison(
            own.predictions,
            sources,
            name,
            _ComparisonResult(note=reason) if reason else method(own, base),
        )
        for name, method in methods
    )
    return primary, secondary


def compare_with_chance(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> tuple[Comparison, ...]:
    """The model's AUC of each marker less 0.5, over all sites of each role.

    With the intervals of the score table. Holm's family is the markers of one role; see
    `RESAMPLES_PER_TEST`.
    """
    out: list[Comparison] = []
    draws = max(replicates, RESAMPLES_PER_TEST * len(MARKERS))
    for role, own in results_by_role(results, model):
        out += holm_correction(
            [
                chance_comparison(
                    paired_estimate(paired_predictions(own, m.id), draws), model, role
                )
                for m in MARKERS
            ]
        )
    return tuple(out)


def chance_comparison(
    own: PairedEstimate, model: str, role: Role, other: str = CHANCE
) -> Comparison:
    """An AUC less 0.5, with the interval of the score table; None where there is no AUC or no
    interval."""
    value, low, high = own.value, own.interval.low, own.interval.high
    result = _ComparisonResult(note=own.note or own.interval.note)
    if value is not None and low is not None and high is not None:
        result = _ComparisonResult(
            value - 0.5, low - 0.5, high - 0.5, _chance_p(own, value, low, high)
        )
    sources = ComparedSources(model, other, role, ALL_SITES)
    return _comparison(own.predictions, sources, BY_CHANCE, result)


def holm_correction(family: Sequence[Comparison]) -> list[Comparison]:
    """The family with `p_holm` (Holm 1979, Scandinavian Journal of Statistics 6:65).

    A comparison without a p, or with fewer than `MIN_CASES_PER_CLASS` cases of a class, is not in
    the family: its `p_holm` is None, and it enters no verdict.
    """
    tested = sorted(
        (c.p, i)
        for i, c in enumerate(family)
        if c.p is not None and c.n_rarest_class >= MIN_CASES_PER_CLASS
    )
    out, reached = list(family), 0.0
    for place, (p, i) in enumerate(tested):
        reached = max(reached, min(1.0, (len(tested) - place) * p))
        out[i] = replace(family[i], p_holm=reached)
    return out


def bootstrap_p_value(replicates: Values) -> float | None:
    """Two-sided p of a difference of 0: twice the smaller share of replicates on one side of 0.

    It is below 0.05 where the percentile interval excludes 0 (Efron & Tibshirani 1993, section
    15.4); with one added above and below, so that it is never 0 (Davison & Hinkley 1997, section
    4.2). None where there is no interval.
    """
    if len(replicates) == 0 or percentile_interval(replicates).low is None:
        return None
    found = replicates[np.isfinite(replicates)]
    least = min((found <= 0).sum(), (found >= 0).sum())
    return min(1.0, 2 * (int(least) + 1) / (len(found) + 1))


def cross_site_matrices(
    results: Sequence[CaseResult], replicates: int
) -> tuple[CrossSiteMatrix, ...]:
    """For Dice and each marker's AUC: every model on every site, external and held-out apart.

    Federated and pooled come first, models of one site last, each group by name.
    """
    first = ("federated", "pooled")
    models = sorted(
        {r.model for r in results}, key=lambda m: (m.startswith(_OF_ONE_SITE), m not in first, m)
    )
    columns = sorted({(r.role, r.site) for r in results})
    cells: dict[tuple[str, Role, str], list[CaseResult]] = defaultdict(list)
    for result in results:
        cells[result.model, result.role, result.site].append(result)

    def cell(model: str, role: Role, site: str, task: str) -> ScoreRow:
        own = cells.get((model, role, site), [])
        note = "" if own else "not tested there"
        return score_row(
            paired_estimate(paired_predictions(own, task), replicates),
            ScoreGroup(model, role, site),
            note,
        )

    return tuple(
        CrossSiteMatrix(
            task,
            paired_predictions([], task).metric,
            tuple(models),
            tuple(columns),
            tuple(tuple(cell(m, *column, task) for column in columns) for m in models),
        )
        for task in TASKS
    )


def _chance_p(own: PairedEstimate, value: float, low: float, high: float) -> float | None:
    """p of an AUC of 0.5, on the logit scale of the interval: below 0.05 where the interval
    excludes 0.5. A perfect AUC has no logit; its p is the bootstrap's."""
    if not 0 < value < 1:
        return bootstrap_p_value(own.replicates - 0.5)
    error = float(logit(high) - logit(low)) / (2 * Z_95)
    return 2 * float(ndtr(-abs(float(logit(value))) / error))


@dataclass(frozen=True)
class _ComparisonResult:
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


def _by_delong(own: PairedEstimate, base: PairedEstimate) -> _ComparisonResult:
    difference = _gap(own, base)
    parts = auc_components(own.predictions) - auc_components(base.predictions)
    alone = np.flatnonzero(~np.isfinite(parts))
    if len(alone):
        name = own.predictions.classes[own.predictions.truth[alone[0]]]
        return _ComparisonResult(difference, note=f"one {name} case: no spread to measure")
    error = math.sqrt(patient_variance(parts, own.predictions.patients))
    if error**2 <= _NO_SPREAD:
        if abs(difference) <= _NO_SPREAD:
            return _ComparisonResult(0.0, 0.0, 0.0, 1.0)
        return _ComparisonResult(difference, note="the pairs won have no spread")
    low, high = difference - Z_95 * error, difference + Z_95 * error
    p = 2 * float(ndtr(-abs(difference) / error))
    return _ComparisonResult(difference, max(-1.0, low), min(1.0, high), p)


def _by_bootstrap(own: PairedEstimate, base: PairedEstimate) -> _ComparisonResult:
    return _bootstrapped(_gap(own, base), own.replicates - base.replicates)


def _bootstrapped(difference: float, replicates: Values) -> _ComparisonResult:
    bounds = Interval(None, None) if len(replicates) == 0 else percentile_interval(replicates)
    return _ComparisonResult(
        difference, bounds.low, bounds.high, bootstrap_p_value(replicates), bounds.note
    )


def _by_ranks(own: PairedEstimate, base: PairedEstimate) -> _ComparisonResult:
    """Signed-rank test of each patient's mean difference; patients with no difference are dropped,
    as by Wilcoxon. Without an interval."""
    from scipy.stats import wilcoxon

    names, index = np.unique(own.predictions.patients, return_inverse=True)
    gaps = own.predictions.scores[:, 0] - base.predictions.scores[:, 0]
    patients = np.bincount(index, gaps, len(names)) / np.bincount(index, minlength=len(names))
    if not patients.any():
        return _ComparisonResult(0.0, p=1.0)
    rows, columns = np.triu_indices(len(patients))
    middle = float(np.median((patients[rows] + patients[columns]) / 2))
    return _ComparisonResult(middle, p=float(wilcoxon(patients).pvalue))


def _gap(own: PairedEstimate, base: PairedEstimate) -> float:
    if own.value is None or base.value is None:
        raise ValueError("a source without a value cannot be compared")
    return own.value - base.value


def _comparison(
    predictions: PairedPredictions,
    sources: ComparedSources,
    method: str,
    result: _ComparisonResult,
) -> Comparison:
    return Comparison(
        model=sources.model,
        other=sources.other,
        role=sources.role,
        site=sources.site,
        task=predictions.task,
        metric=predictions.metric,
        n=predictions.n,
        n_rarest_class=predictions.n_rarest_class,
        difference=result.difference,
        low=result.low,
        high=result.high,
        p=result.p,
        p_holm=None,
        method=method,
        note=result.note,
    )
