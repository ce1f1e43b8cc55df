"""Scores of a study of hospitals: AUC over all and within sites, and the gain over a reference.

Both gains are paired: the two models predict the same cases. Over all cases, DeLong's paired test;
within sites, the difference of pairs won, whose covariance adds up over sites.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.by_site_sums.sums import AucSums, auc_sums
from gliofed.evaluation.comparison import ComparedSources, compare_pair
from gliofed.evaluation.intervals.analytic import Z_95, auc_from_sums, auc_interval
from gliofed.evaluation.metrics.definitions import AUC_WITHIN_SITE
from gliofed.evaluation.metrics.discrimination import Probabilities
from gliofed.evaluation.paired import (
    MIN_CASES_PER_CLASS,
    PairedEstimate,
    PairedPredictions,
    paired_estimate,
    paired_predictions,
)
from gliofed.evaluation.results import CaseResult
from gliofed.radiomics.standardisation import sum_over_sites

OVER_ALL: Final = "auc"


@dataclass(frozen=True)
class HospitalScore:
    """One AUC of one model and marker on one group of cases. Intervals are of 95 %.

    metric: "auc", over all cases, or "auc_within_site", over pairs of one site. n: cases in a pair.
    n_rarest_class: of these. gain: value less that of the model `reference` on the same cases; None
    without a reference. note: why there is no value or interval, or that it rests on few cases.
    """

    group: str
    marker: str
    model: str
    metric: str
    n: int
    n_rarest_class: int
    value: float | None
    low: float | None
    high: float | None
    reference: str = ""
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ScoredPair:
    """Which model is compared with which, on which group of cases."""

    group: str
    marker: str
    model: str
    reference: str = ""


def score_pair(
    pair: ScoredPair,
    own: Sequence[CaseResult],
    base: Sequence[CaseResult] = (),
    replicates: int = 2000,
) -> tuple[HospitalScore, HospitalScore]:
    """Over all cases, then within sites. own, base: results of the model and of the reference.

    Cases that either model has no probability for are dropped from both.
    """
    mine, other = _on_same_cases(own, base, pair.marker)
    found = paired_predictions(mine, pair.marker)
    against = paired_predictions(other, pair.marker)
    return (
        _over_all(pair, paired_estimate(found, replicates), against, replicates),
        _within_sites(pair, found, against),
    )


def _on_same_cases(
    own: Sequence[CaseResult], base: Sequence[CaseResult], marker: str
) -> tuple[list[CaseResult], list[CaseResult]]:
    mine, other = _finite(own, marker), _finite(base, marker)
    both = mine.keys() & other.keys() if base else mine.keys()
    return [mine[k] for k in mine if k in both], [other[k] for k in other if k in both]


def _finite(results: Sequence[CaseResult], marker: str) -> dict[tuple[str, str], CaseResult]:
    return {(r.site, r.case): r for r in results if np.isfinite(r.probabilities[marker]).all()}


def _over_all(
    pair: ScoredPair, own: PairedEstimate, against: PairedPredictions, replicates: int
) -> HospitalScore:
    gain = low = high = None
    why = own.note
    if pair.reference and not own.note:
        sources = ComparedSources(pair.model, pair.reference, "external", ALL_SITES)
        row = compare_pair(own, paired_estimate(against, replicates), sources)[0]
        gain, low, high, why = row.difference, row.low, row.high, row.note
    predictions = own.predictions
    return HospitalScore(
        pair.group,
        pair.marker,
        pair.model,
        OVER_ALL,
        predictions.n,
        predictions.n_rarest_class,
        own.value,
        own.interval.low,
        own.interval.high,
        pair.reference,
        gain,
        low,
        high,
        _with_few(why, predictions.n_rarest_class),
    )


def _within_sites(
    pair: ScoredPair, own: PairedPredictions, against: PairedPredictions
) -> HospitalScore:
    sites = np.array([key[2] for key in own.keys])
    rows = [sites == s for s in np.unique(sites)]
    paired = [r for r in rows if len(set(own.truth[r].tolist())) > 1]
    if not paired:
        return HospitalScore(
            pair.group, pair.marker, pair.model, AUC_WITHIN_SITE, 0, 0, None, None, None,
            pair.reference, note="no site has cases of two classes",
        )  # fmt: skip
    areas = sum_over_sites(auc_sums(own.truth[r], own.scores[r]) for r in paired)
    used = np.concatenate([own.truth[r] for r in paired])
    rarest = int(min(n for n in np.bincount(used) if n))
    bounds = auc_interval(areas)
    gain: tuple[float | None, float | None, float | None] = (None, None, None)
    if pair.reference:
        gain = _gain([(own.truth[r], own.scores[r], against.scores[r]) for r in paired])
    return HospitalScore(
        pair.group,
        pair.marker,
        pair.model,
        AUC_WITHIN_SITE,
        areas.cases,
        rarest,
        auc_from_sums(areas),
        bounds.low,
        bounds.high,
        pair.reference,
        *gain,
        note=_with_few(bounds.note, rarest),
    )


def _gain(
    sites: Sequence[tuple[np.ndarray, Probabilities, Probabilities]],
) -> tuple[float, float, float]:
    """AUC within sites of the first model less that of the second, with its interval."""
    areas: AucSums = sum_over_sites(auc_sums(truth, one, two) for truth, one, two in sites)
    pairs = np.array(areas.pairs, float)
    compared = len(pairs) // 2
    there = pairs > 0
    share = np.zeros(len(pairs))
    share[there] = 1 / (there[:compared].sum() * pairs[there])
    share[compared:] *= -1
    value = float(share @ np.array(areas.won))
    variance = float(share @ np.array(areas.covariance) @ share)
    half = Z_95 * math.sqrt(max(variance, 0.0))
    return value, max(-1.0, value - half), min(1.0, value + half)


def _with_few(note: str, rarest: int) -> str:
    few = (
        f"fewer than {MIN_CASES_PER_CLASS} cases of a class" if rarest < MIN_CASES_PER_CLASS else ""
    )
    return "; ".join(filter(None, (note, few)))
