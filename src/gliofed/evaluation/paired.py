"""One source's predictions for one task, prepared for paired comparison.

A source is a model, or another ranking of cases: age, sex, tumour volume. Patients are the
unit: all cases of a patient, in all seeds and folds, move together in a resample and in DeLong's
variance. With several seeds a value is the mean over seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np

from gliofed.evaluation.by_site_sums.sums import MASK, SUM_TASKS, pair_wins
from gliofed.evaluation.intervals.bootstrap import Interval, Values, weighted_mean
from gliofed.evaluation.intervals.estimate import NO_INTERVAL, NOT_TRAINED
from gliofed.evaluation.intervals.sample import Metric as Measured
from gliofed.evaluation.intervals.sample import (
    PredictionSample,
    bootstrap_t_interval,
    resampled_auc_interval,
)
from gliofed.evaluation.metrics.definitions import RANKED_METRIC
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities, auc
from gliofed.evaluation.results import CaseResult, Role, ScoreGroup, ScoreRow
from gliofed.markers import BY_ID, Marker
from gliofed.types import Unknown

TASKS: Final = SUM_TASKS
MIN_CASES_PER_CLASS: Final = 10
"""Cases of the rarest class that a stratum's figure, or a verdict, needs. Measured, not derived:
with 5 beside 40 others, tests reject a true null 7 to 9 times in a hundred, with 10, 5 to 6 times
(`benchmarks/few_cases.py`)."""
Metric = Literal["auc", "auc_4_against_2_3", "dice"]
PredictionKey = tuple[int, str, str, str]
"""Seed, fold, site, case."""


@dataclass(frozen=True)
class PairedPredictions:
    """The predictions that can enter one figure, in the order of their keys.

    classes: names; none for Dice. truth: (n,) class indices, 0 for Dice. scores: (n, classes) of
    any range, since the AUC uses only their order; for Dice (n, 1).
    """

    task: str
    metric: Metric
    classes: tuple[str, ...]
    keys: tuple[PredictionKey, ...]
    patients: tuple[str, ...]
    truth: ClassIndices
    scores: Probabilities

    @property
    def n(self) -> int:
        """Number of cases; a case counts once over all seeds and folds."""
        return len({key[2:] for key in self.keys})

    @property
    def seeds(self) -> int:
        """Number of seeds that the value is averaged over."""
        return len({key[0] for key in self.keys})

    @property
    def n_rarest_class(self) -> int:
        """Cases of the rarest class present; for Dice, all cases."""
        groups = [
            {key[2:] for key, t in zip(self.keys, self.truth, strict=True) if t == c}
            for c in np.unique(self.truth)
        ]
        return min(map(len, groups), default=0)


@dataclass(frozen=True)
class PairedEstimate:
    """Predictions with their value, replicates and the interval of the score table. Without a value
    there are no replicates, and `note` gives the reason."""

    predictions: PairedPredictions
    value: float | None
    replicates: Values
    note: str = ""
    interval: Interval = NO_INTERVAL


def results_by_role(
    results: Sequence[CaseResult], model: str
) -> list[tuple[Role, list[CaseResult]]]:
    """One model's results for each role that has any."""
    roles: dict[Role, list[CaseResult]] = defaultdict(list)
    for result in results:
        if result.model == model:
            roles[result.role].append(result)
    return sorted(roles.items())


def paired_predictions(results: Sequence[CaseResult], task: str) -> PairedPredictions:
    """One model's predictions: for cases with an expert mask, or with a known label of the
    marker."""
    if task == MASK:
        segmented = sorted((r for r in results if r.dice is not None), key=_key)
        dices = np.array([r.dice for r in segmented], float)[:, None]
        no_truth = np.zeros(len(segmented), np.int64)
        return PairedPredictions(task, "dice", (), *_identity(segmented), no_truth, dices)
    marker = BY_ID[task]
    known = _known(results, marker)
    truth = np.array([marker.classes.index(str(r.labels[task])) for r in known], np.int64)
    rows = np.array([r.probabilities[task] for r in known], float)
    scores = rows.reshape(len(known), len(marker.classes))
    return PairedPredictions(task, "auc", marker.classes, *_identity(known), truth, scores)


def ranked_by_score(
    results: Sequence[CaseResult],
    task: str,
    positive: str,
    score: Callable[[CaseResult], float | None],
) -> PairedPredictions:
    """One class of a marker against the rest, ranked by any score, over the cases that have it."""
    marker = BY_ID[task]
    pairs = [(r, s) for r in _known(results, marker) if (s := score(r)) is not None]
    rest = " or ".join(c for c in marker.classes if c != positive)
    truth = np.array([r.labels[task] == positive for r, _ in pairs], np.int64)
    scores = np.array([s for _, s in pairs], float)
    metric: Metric = RANKED_METRIC.get(task, "auc")
    identity = _identity([r for r, _ in pairs])
    both = np.column_stack([-scores, scores])
    return PairedPredictions(task, metric, (rest, positive), *identity, truth, both)


def paired_estimate(own: PairedPredictions, replicates: int) -> PairedEstimate:
    """The AUC or mean Dice, and the same on every resample of patients.

    Of the AUC over several sites, pairs across sites count, as in the score table.
    """
    reason = missing_reason(own)
    if reason:
        return PairedEstimate(own, None, np.zeros(0), reason)
    sample, metric = _sample(own, replicates), _metric(own)
    value = sample.value(metric)
    if len(set(own.patients)) == 1:
        return PairedEstimate(own, value, np.zeros(0), "one patient")
    again = sample.replicates(metric)
    if not len(again):
        return PairedEstimate(own, value, again)
    if own.metric == "dice":
        bounds = bootstrap_t_interval(sample, own.scores[:, 0], np.ones(len(own.keys)), (0.0, 1.0))
    else:
        bounds = resampled_auc_interval(sample, own.truth, own.scores, value, again)
    return PairedEstimate(own, value, again, interval=bounds)


def missing_reason(own: PairedPredictions) -> str:
    """Why these predictions have no figure; empty if they have one."""
    if not own.keys:
        return (
            "no case with an expert mask"
            if own.metric == "dice"
            else "no case with a known label and a score"
        )
    if len(set(own.keys)) < len(own.keys):
        return "a case has two predictions"
    bad = ~np.isfinite(own.scores).all(1)
    if own.metric != "dice" and np.isnan(own.scores).all():
        return NOT_TRAINED
    if bad.any():
        return f"the score of {own.keys[int(bad.argmax())][3]} is not finite"
    seeds = np.array([key[0] for key in own.keys])
    for seed in np.unique(seeds):
        present = np.unique(own.truth[seeds == seed])
        if own.metric != "dice" and len(present) == 1:
            return f"only {own.classes[present[0]]} present"
    return ""


def too_few_note(own: PairedPredictions) -> str:
    """Note on classes with some cases but fewer than `MIN_CASES_PER_CLASS`; empty without such a
    class."""
    if own.metric == "dice":
        return (
            f"too few: {own.n} cases, {MIN_CASES_PER_CLASS} are needed"
            if 0 < own.n < MIN_CASES_PER_CLASS
            else ""
        )
    if not own.keys or own.n_rarest_class >= MIN_CASES_PER_CLASS:
        return ""
    counts = [
        (name, len({k[2:] for k, t in zip(own.keys, own.truth, strict=True) if t == c}))
        for c, name in enumerate(own.classes)
    ]
    rare = ", ".join(f"{own.task} {name}: {n}" for name, n in counts if 0 < n < MIN_CASES_PER_CLASS)
    return f"too few: {rare}; {MIN_CASES_PER_CLASS} of each are needed"


def auc_components(own: PairedPredictions) -> Values:
    """(n,) contribution of each prediction to the AUC, centred on 0; NaN for the only case of its
    class.

    The sums by patient, squared and added, are the variance of the AUC: DeLong's (1988) with one
    prediction a patient, else that of Obuchowski (1997, Biometrics 53:567) for clustered data.
    """
    out = np.full(len(own.keys), np.nan)
    seeds = np.array([key[0] for key in own.keys])
    for seed in np.unique(seeds):
        rows = np.flatnonzero(seeds == seed)
        truth = own.truth[rows]
        wins, most = pair_wins(truth, own.scores[rows])
        pairs = most.sum(1, keepdims=True) / 2
        used = pairs[:, 0] > 0
        shares = (wins[used] / pairs[used]).mean(0)
        cases = np.bincount(truth, minlength=len(own.classes))
        for c in np.flatnonzero(cases > 1):
            members = truth == c
            even = shares[members] - shares[members].mean()
            out[rows[members]] = even * np.sqrt(cases[c] / (cases[c] - 1))
    return out / own.seeds


def patient_variance(parts: Values, patients: Sequence[str]) -> float:
    """Sum over patients of the squared sum of the patient's contributions."""
    names, index = np.unique(patients, return_inverse=True)
    return float((np.bincount(index, parts, len(names)) ** 2).sum())


def unpaired_reason(one: PairedPredictions, other: PairedPredictions) -> str:
    """Why two sources cannot be compared case by case; empty if they can."""
    if (one.keys, one.truth.tolist()) == (other.keys, other.truth.tolist()):
        return ""
    left, right = set(one.keys), set(other.keys)
    if left == right:
        return "not the same labels or not once each"
    return f"not the same cases: {len(left - right)} of one only, {len(right - left)} of the other"


def score_row(estimate: PairedEstimate, group: ScoreGroup, note: str = "") -> ScoreRow:
    """The figure as a row of a score table; with a note given, only n and the note."""
    value, interval = (None, NO_INTERVAL) if note else (estimate.value, estimate.interval)
    return ScoreRow(
        group.model,
        group.role,
        group.site,
        task=estimate.predictions.task,
        metric=estimate.predictions.metric,
        n=estimate.predictions.n,
        value=value,
        low=interval.low,
        high=interval.high,
        seeds=estimate.predictions.seeds,
        note=note or "; ".join(filter(None, (estimate.note, interval.note))),
        method=interval.method,
        stratum=group.stratum,
    )


def _sample(own: PairedPredictions, replicates: int) -> PredictionSample:
    cases = [f"{site}/{case}" for _, _, site, case in own.keys]
    return PredictionSample.named(cases, [key[0] for key in own.keys], own.patients, replicates)


def _metric(own: PairedPredictions) -> Measured:
    if own.metric == "dice":
        return partial(weighted_mean, own.scores[:, 0])
    return partial(auc, own.truth, own.scores)


def _key(result: CaseResult) -> PredictionKey:
    return result.seed, result.fold, result.site, result.case


def _known(results: Sequence[CaseResult], marker: Marker) -> list[CaseResult]:
    return sorted((r for r in results if not isinstance(r.labels[marker.id], Unknown)), key=_key)


def _identity(
    results: Sequence[CaseResult],
) -> tuple[tuple[PredictionKey, ...], tuple[str, ...]]:
    """Keys and patients."""
    return tuple(map(_key, results)), tuple(r.patient for r in results)
