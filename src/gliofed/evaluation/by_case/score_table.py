"""The score table: every metric of every model on every group of cases, with its interval."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gliofed.evaluation.by_case.marker_metrics import marker_estimates
from gliofed.evaluation.by_case.segmentation_metrics import (
    SEGMENTATION_METRICS,
    segmentation_estimate,
)
from gliofed.evaluation.intervals.bootstrap import Interval, Values, Weights, percentile_interval
from gliofed.evaluation.intervals.estimate import (
    MetricEstimate,
    missing_estimate,
    resampled_estimate,
)
from gliofed.evaluation.intervals.sample import PredictionSample, logit_interval
from gliofed.evaluation.metrics.definitions import AUC_MEAN
from gliofed.evaluation.metrics.discrimination import auc
from gliofed.evaluation.results import CaseResult, Role, ScoreGroup, ScoreRow
from gliofed.markers import MARKERS
from gliofed.types import Unknown

ALL_SITES = "all"
"""The site of rows over all cases; also of cases without a known site."""
MEDIAN_MODEL = "alone:median"


def score_table(
    results: Sequence[CaseResult], replicates: int, reference: str = "federated"
) -> tuple[ScoreRow, ...]:
    """All rows of all models; `difference` is against the model named `reference`.

    Unknown labels and cases without an expert mask are excluded; n is the number of cases used.
    With several seeds a value is the mean over seeds, on the same resampled patients.
    """
    groups: dict[tuple[Role, str], dict[str, list[CaseResult]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for result in results:
        for site in {ALL_SITES: 0, result.site: 0}:  # in this order, and once
            groups[result.role, site][result.model].append(result)
    rows: list[ScoreRow] = []
    for (role, site), models in groups.items():
        base = _figures(models.get(reference, []), replicates, site == ALL_SITES)
        for model, own in models.items():
            figures = base if model == reference else _figures(own, replicates, site == ALL_SITES)
            folds = len({r.fold for r in own})
            for (task, metric), figure in figures.items():
                row = _row(ScoreGroup(model, role, site), task, metric, figure)
                if model != reference and (task, metric) in base:
                    row = _with_difference(row, figure, base[task, metric])
                if folds > 1 and site == ALL_SITES:
                    more = f"cases of {folds} folds, each predicted by the model of its fold"
                    row = replace(row, note="; ".join(filter(None, (row.note, more))))
                rows.append(row)
    return (*rows, *_median_rows(rows, reference))


def _figures(
    results: Sequence[CaseResult], replicates: int, with_mean: bool
) -> Mapping[tuple[str, str], MetricEstimate]:
    if not results:
        return {}
    out = {
        ("mask", m.id): segmentation_estimate(results, m, replicates) for m in SEGMENTATION_METRICS
    }
    for marker in MARKERS:
        figures = marker_estimates(results, marker, replicates)
        out |= {(marker.id, metric): figure for metric, figure in figures.items()}
    if with_mean:
        out["markers", AUC_MEAN] = _mean_auc(results, replicates)
    return out


def _mean_auc(results: Sequence[CaseResult], replicates: int) -> MetricEstimate:
    """The mean over markers of the AUCs that exist on the whole group."""
    parts = []
    for marker in MARKERS:
        rows = [i for i, r in enumerate(results) if not isinstance(r.labels[marker.id], Unknown)]
        names = [str(results[i].labels[marker.id]) for i in rows]
        truth = np.array([marker.classes.index(name) for name in names], np.int64)
        found = np.array([results[i].probabilities[marker.id] for i in rows], float)
        if len(set(names)) > 1 and np.isfinite(found).all():
            parts.append((rows, truth, found))

    def over_markers(weights: Weights) -> Values:
        areas: Values = np.mean([auc(t, p, weights[:, rows]) for rows, t, p in parts], axis=0)
        return areas

    if not parts:
        return missing_estimate(len(results), "no marker has two known classes")
    return resampled_estimate(
        results, PredictionSample.of(results, replicates), over_markers, logit_interval
    )


def _row(group: ScoreGroup, task: str, metric: str, estimate: MetricEstimate) -> ScoreRow:
    interval = estimate.interval
    return ScoreRow(
        group.model,
        group.role,
        group.site,
        task,
        metric,
        n=estimate.n,
        value=estimate.value,
        low=interval.low,
        high=interval.high,
        seeds=estimate.seeds,
        note="; ".join(filter(None, (estimate.note, interval.note))),
        method=interval.method,
    )


def _with_difference(row: ScoreRow, own: MetricEstimate, base: MetricEstimate) -> ScoreRow:
    """Paired difference if both have the same cases in the same order and the same resamples: the
    middle 95 % of the replicates' differences."""
    if own.value is None or base.value is None or own.rows != base.rows:
        return row
    bounds = Interval(None, None)
    if len(own.replicates) and len(base.replicates):
        bounds = percentile_interval(own.replicates - base.replicates)
    return replace(
        row,
        difference=own.value - base.value,
        difference_low=bounds.low,
        difference_high=bounds.high,
    )


def _median_rows(rows: Sequence[ScoreRow], reference: str) -> list[ScoreRow]:
    """For each figure, the median over the single-site models, without an interval."""
    groups: dict[tuple[Role, str, str, str], list[ScoreRow]] = defaultdict(list)
    base = {}
    for row in rows:
        key = (row.role, row.site, row.task, row.metric)
        if row.model.startswith("alone:"):
            groups[key].append(row)
        elif row.model == reference:
            base[key] = row.value
    out = []
    for key, own in groups.items():
        values = [r.value for r in own if r.value is not None]
        value = statistics.median(values) if values else None
        other = base.get(key)
        gap = value - other if value is not None and other is not None else None
        role, site, task, metric = key
        most = max(own, key=lambda r: r.n)
        note = f"median over {len(values)} single-site models; no interval"
        out.append(
            ScoreRow(
                MEDIAN_MODEL,
                role,
                site,
                task,
                metric,
                most.n,
                value,
                None,
                None,
                most.seeds,
                gap,
                note=note if values else own[0].note,
            )
        )
    return out
