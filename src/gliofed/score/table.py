"""The score table: every metric of every model on every group of cases, with its interval."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gliofed.markers import MARKERS, Marker
from gliofed.score.calibration import brier
from gliofed.score.discrimination import Index, Probabilities, auc, balanced_accuracy
from gliofed.score.intervals import (
    Interval,
    Values,
    Weights,
    interval,
    mean,
    median,
    once,
    resamples,
)
from gliofed.score.results import CaseResult, Role, ScoreRow
from gliofed.types import Unknown

ALL_SITES = "all"
MARKER_METRICS = {"auc": auc, "balanced_accuracy": balanced_accuracy, "brier": brier}
MEDIAN_MODEL = "alone:median"
NOTHING: Values = np.zeros(0)


@dataclass(frozen=True)
class Figure:
    """A metric, the mean over seeds: point value and replicates, n, and why it is missing.

    rows: seed, fold, site and id of each answer that entered. n: cases among them.
    """

    rows: tuple[tuple[int, str, str, str], ...]
    value: float | None
    replicates: Values
    n: int
    seeds: int
    note: str = ""


def score_table(
    results: Sequence[CaseResult], replicates: int, reference: str = "federated"
) -> tuple[ScoreRow, ...]:
    """All rows of all models; `difference` is against the model named `reference`.

    Unknown labels and cases without an expert mask are left out, and n says how many stayed. With
    several seeds a value is the mean over seeds, on the same resampled patients.
    """
    groups: dict[tuple[Role, str], dict[str, list[CaseResult]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for result in results:
        for site in (ALL_SITES, result.site):
            groups[result.role, site][result.model].append(result)
    rows: list[ScoreRow] = []
    for (role, site), models in groups.items():
        base = _figures(models.get(reference, []), replicates, site == ALL_SITES)
        for model, own in models.items():
            figures = base if model == reference else _figures(own, replicates, site == ALL_SITES)
            folds = len({r.fold for r in own})
            for (task, metric), figure in figures.items():
                row = _row(model, role, site, task, metric, figure)
                if model != reference and (task, metric) in base:
                    row = _with_difference(row, figure, base[task, metric])
                if folds > 1 and site == ALL_SITES:
                    more = f"cases of {folds} folds, each answered by its own model"
                    row = replace(row, note="; ".join(filter(None, (row.note, more))))
                rows.append(row)
    return (*rows, *_median_rows(rows, reference))


def _figures(
    results: Sequence[CaseResult], replicates: int, with_mean: bool
) -> Mapping[tuple[str, str], Figure]:
    if not results:
        return {}
    out = _mask_figures(results, replicates)
    for marker in MARKERS:
        known = _known(results, marker)
        for metric in MARKER_METRICS:
            out[marker.id, metric] = _marker_figure(known, marker, metric, replicates)
    if with_mean:
        out["markers", "auc"] = _mean_auc(results, replicates)
    return out


def _mask_figures(results: Sequence[CaseResult], replicates: int) -> dict[tuple[str, str], Figure]:
    drawn = [r for r in results if r.dice is not None]
    surfaces = [r for r in drawn if r.hd95_mm is not None]
    dices = np.array([r.dice for r in drawn], float)
    distances = np.array([r.hd95_mm for r in surfaces], float)
    none = "" if drawn else "no case with an expert mask"
    left = len(drawn) - len(surfaces)
    empty = f"{left} predictions without a surface left out" if left else none
    return {
        ("mask", "dice"): _figure(drawn, lambda w: mean(dices, w), replicates, none),
        ("mask", "dice_median"): _figure(drawn, lambda w: median(dices, w), replicates, none),
        ("mask", "hd95_mm"): _figure(surfaces, lambda w: mean(distances, w), replicates, empty),
    }


def _arrays(results: Sequence[CaseResult], marker: Marker) -> tuple[Index, Probabilities]:
    truth = np.array([marker.classes.index(str(r.labels[marker.id])) for r in results], np.int64)
    wide = (len(results), len(marker.classes))
    found = np.array([r.probabilities[marker.id] for r in results], float).reshape(wide)
    return truth, found


def _known(results: Sequence[CaseResult], marker: Marker) -> list[CaseResult]:
    return [r for r in results if not isinstance(r.labels[marker.id], Unknown)]


def _marker_figure(
    known: Sequence[CaseResult], marker: Marker, metric: str, replicates: int
) -> Figure:
    truth, found = _arrays(known, marker)
    bad = [str(r.case) for r, p in zip(known, found, strict=True) if not np.isfinite(p).all()]
    note = ""
    if not known:
        note = "no case with a known label"
    elif bad:
        return Figure((), None, NOTHING, len(known), 1, f"probability of {bad[0]} is not finite")
    elif metric != "brier" and len(np.unique(truth)) == 1:
        note = f"only {marker.classes[truth[0]]} present"
    scored = MARKER_METRICS[metric]
    return _figure(known, lambda w: scored(truth, found, w), replicates, note)


def _mean_auc(results: Sequence[CaseResult], replicates: int) -> Figure:
    """The mean over markers of the AUCs that exist on the whole group."""
    parts = []
    for marker in MARKERS:
        rows = [i for i, r in enumerate(results) if not isinstance(r.labels[marker.id], Unknown)]
        truth, found = _arrays([results[i] for i in rows], marker)
        if len(np.unique(truth)) > 1 and np.isfinite(found).all():
            parts.append((rows, truth, found))

    def over_markers(weights: Weights) -> Values:
        areas: Values = np.mean([auc(t, p, weights[:, rows]) for rows, t, p in parts], axis=0)
        return areas

    if not parts:
        return Figure((), None, NOTHING, len(results), 0, "no marker has two known classes")
    return _figure(results, over_markers, replicates, "")


def _figure(
    results: Sequence[CaseResult], metric: Callable[[Weights], Values], replicates: int, note: str
) -> Figure:
    """The metric on each seed's results, averaged over seeds, and on every resample of patients.

    A figure that one seed lacks is lacking. Seeds may hold out different patients; a resample
    draws from all of them, and each seed sees those of its own.
    """
    if not results:
        return Figure((), None, NOTHING, 0, 0, note)
    seed = np.array([r.seed for r in results])
    seeds = np.unique(seed)

    def over_seeds(weights: Weights) -> Values:
        found: Values = np.mean([metric(weights * (seed == s)) for s in seeds], axis=0)
        return found

    rows = tuple((r.seed, r.fold, r.site, r.case) for r in results)
    cases = len({r[2:] for r in rows})
    value = float(over_seeds(once(len(results)))[0])
    patients = [r.patient for r in results]
    if not np.isfinite(value):
        return Figure(rows, None, NOTHING, cases, len(seeds), note)
    if len(set(patients)) == 1:
        return Figure(rows, value, NOTHING, cases, len(seeds), note or "one patient")
    again = over_seeds(resamples(patients, replicates))
    return Figure(rows, value, again, cases, len(seeds), note)


def _row(model: str, role: Role, site: str, task: str, metric: str, figure: Figure) -> ScoreRow:
    bounds = Interval(None, None)
    if len(figure.replicates):
        bounds = interval(figure.replicates)
    note = "; ".join(filter(None, (figure.note, bounds.note)))
    return ScoreRow(
        model, role, site, task, metric, figure.n, figure.value, bounds.low, bounds.high,
        figure.seeds, note=note,
    )  # fmt: skip


def _with_difference(row: ScoreRow, own: Figure, base: Figure) -> ScoreRow:
    """Paired where both answered the same cases in the same order, on the same draws."""
    if own.value is None or base.value is None or own.rows != base.rows:
        return row
    bounds = Interval(None, None)
    if len(own.replicates):
        bounds = interval(own.replicates - base.replicates)
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
            ScoreRow(MEDIAN_MODEL, role, site, task, metric, most.n, value, None, None,
                     most.seeds, gap, note=note if values else own[0].note)
        )  # fmt: skip
    return out
