"""The score table: every metric of every model on every group of cases, with its interval."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gliofed.markers import MARKERS, Marker
from gliofed.score.calibration import brier
from gliofed.score.discrimination import Index, Probabilities, auc, balanced_accuracy
from gliofed.score.intervals import Interval, Metric, Rows, interval, resamples
from gliofed.score.results import CaseResult, Role, ScoreRow
from gliofed.types import Unknown

ALL_SITES = "all"
MARKER_METRICS = {"auc": auc, "balanced_accuracy": balanced_accuracy, "brier": brier}
MEDIAN_MODEL = "alone:median"


@dataclass(frozen=True)
class Figure:
    """A metric, the mean over seeds: point value and replicates, n, and why it is missing."""

    patients: tuple[str, ...]
    value: float | None
    replicates: tuple[float | None, ...]
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
        known = [r for r in results if not isinstance(r.labels[marker.id], Unknown)]
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
        ("mask", "dice"): _figure(drawn, lambda r: float(dices[r].mean()), replicates, none),
        ("mask", "dice_median"): _figure(
            drawn, lambda r: float(np.median(dices[r])), replicates, none
        ),
        ("mask", "hd95_mm"): _figure(
            surfaces, lambda r: float(distances[r].mean()), replicates, empty
        ),
    }


def _arrays(known: Sequence[CaseResult], marker: Marker) -> tuple[Index, Probabilities]:
    truth = np.array([marker.classes.index(str(r.labels[marker.id])) for r in known], np.int64)
    wide = (len(known), len(marker.classes))
    found = np.array([r.probabilities[marker.id] for r in known], float).reshape(wide)
    return truth, found


def _marker_figure(
    known: Sequence[CaseResult], marker: Marker, metric: str, replicates: int
) -> Figure:
    truth, found = _arrays(known, marker)
    bad = [str(r.case) for r, p in zip(known, found, strict=True) if not np.isfinite(p).all()]
    note = ""
    if not known:
        note = "no case with a known label"
    elif bad:
        return Figure((), None, (), len(known), 1, f"probability of {bad[0]} is not finite")
    elif metric != "brier" and len(np.unique(truth)) == 1:
        note = f"only {marker.classes[truth[0]]} present"
    scored = MARKER_METRICS[metric]
    return _figure(known, lambda r: scored(truth[r], found[r]), replicates, note)


def _mean_auc(results: Sequence[CaseResult], replicates: int) -> Figure:
    """The mean over markers of the AUCs that exist on the whole group."""
    parts = []
    for marker in MARKERS:
        truth, found = np.full(len(results), -1), np.zeros((len(results), len(marker.classes)))
        for row, result in enumerate(results):
            value = result.labels[marker.id]
            if not isinstance(value, Unknown):
                truth[row] = marker.classes.index(value)
                found[row] = result.probabilities[marker.id]
        if len(np.unique(truth[truth >= 0])) > 1 and np.isfinite(found).all():
            parts.append((truth, found))

    def mean(rows: Rows) -> float | None:
        areas = []
        for truth, found in parts:
            known = rows[truth[rows] >= 0]
            areas.append(auc(truth[known], found[known]))
        kept = [a for a in areas if a is not None]
        return statistics.fmean(kept) if len(kept) == len(parts) and kept else None

    return _figure(results, mean, replicates, "" if parts else "no marker has two known classes")


def _figure(results: Sequence[CaseResult], metric: Metric, replicates: int, note: str) -> Figure:
    """The metric on all rows of a seed, averaged over seeds, and on every resample of patients."""
    if not results:
        return Figure((), None, (), 0, 0, note)
    seeds = sorted({r.seed for r in results})
    by_seed = [np.array([i for i, r in enumerate(results) if r.seed == s]) for s in seeds]
    values = [metric(rows) for rows in by_seed]
    patients = tuple(results[i].patient for i in by_seed[0])
    again: list[float | None] = [None] * replicates
    if all(v is not None for v in values) and len(patients) > 1:
        draws = resamples(patients, replicates)
        again = [_mean([metric(rows[draw]) for rows in by_seed]) for draw in draws]
    return Figure(patients, _mean(values), tuple(again), len(by_seed[0]), len(seeds), note)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [v for v in values if v is not None]
    return statistics.fmean(found) if len(found) == len(values) and found else None


def _row(model: str, role: Role, site: str, task: str, metric: str, figure: Figure) -> ScoreRow:
    bounds = Interval(None, None)
    if figure.value is not None:
        bounds = interval(figure.replicates)
    note = "; ".join(filter(None, (figure.note, bounds.note)))
    return ScoreRow(
        model, role, site, task, metric, figure.n, figure.value, bounds.low, bounds.high,
        figure.seeds, note=note,
    )  # fmt: skip


def _with_difference(row: ScoreRow, own: Figure, base: Figure) -> ScoreRow:
    """Paired where both answered the same patients, in the same order, with the same draws."""
    if own.value is None or base.value is None or own.patients != base.patients:
        return row
    gaps = [
        None if a is None or b is None else a - b
        for a, b in zip(own.replicates, base.replicates, strict=True)
    ]
    bounds = interval(gaps)
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
