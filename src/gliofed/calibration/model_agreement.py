"""Agreement between models' segmentations against Dice, over test cases.

Agreement is the mean Dice between the segmentations of models trained with different seeds (deep
ensembles, Lakshminarayanan et al. 2017, NeurIPS 30; as a measure for a structure, Roy et al. 2019,
NeuroImage 195:11). It needs no expert mask, and can be used to reject segmentations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from gliofed.calibration.selective import COVERAGES, risk_at_coverage
from gliofed.evaluation.intervals.analytic import Z_95
from gliofed.evaluation.intervals.bootstrap import (
    Interval,
    Values,
    patient_resamples,
    percentile_interval,
    unit_weights,
)
from gliofed.evaluation.results import CaseResult

BY_BONETT: Final = "Bonett & Wright 2000, Psychometrika 65:23"
BY_PERCENTILE: Final = "bootstrap percentiles"
MIN_CASES: Final = 5
"""Minimum number of cases for a correlation."""


@dataclass(frozen=True)
class AgreementRow:
    """Mean Dice of the share `coverage` of cases with the highest agreement; if None, Spearman's
    rank correlation of agreement and Dice. n: cases with both, each with its mean Dice over seeds.
    value, low, high: with 95 % interval; None with the reason in `note`."""

    model: str
    coverage: float | None
    n: int
    value: float | None
    low: float | None
    high: float | None
    method: str = ""
    note: str = ""


def agreement_rows(
    results: Sequence[CaseResult], model: str, replicates: int
) -> tuple[AgreementRow, ...]:
    """Rows for one model's external cases; empty if no case has an agreement and an expert mask."""
    cases: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for r in results:
        known = r.agreement is not None and r.dice is not None
        if known and (r.model, r.role) == (model, "external"):
            cases[r.site, r.case].append(r)
    if not cases:
        return ()
    agreed = np.array([own[0].agreement for own in cases.values()], float)
    dices = np.array([np.mean([r.dice for r in own]) for own in cases.values()], float)
    patients = [own[0].patient for own in cases.values()]
    kept = [(c, *_kept(agreed, dices, patients, c, replicates)) for c in COVERAGES]
    return (
        *(
            AgreementRow(model, c, len(cases), value, f.low, f.high, f.method, f.note)
            for c, value, f in kept
        ),
        _correlation(model, agreed, dices, patients),
    )


def _kept(
    agreed: Values, dices: Values, patients: Sequence[str], coverage: float, replicates: int
) -> tuple[float, Interval]:
    missed = partial(risk_at_coverage, agreed, 1 - dices, coverage=coverage)
    value = 1 - float(missed(weights=unit_weights(len(agreed)))[0])
    if len(set(patients)) == 1:
        return value, Interval(None, None, "one patient")
    found = percentile_interval(1 - missed(weights=patient_resamples(patients, replicates)))
    return value, Interval(found.low, found.high, found.note, BY_PERCENTILE)


def _correlation(
    model: str, agreed: Values, dices: Values, patients: Sequence[str]
) -> AgreementRow:
    """Rank correlation; the interval, on Fisher's scale, assumes independent cases."""
    n = len(agreed)
    if n < MIN_CASES:
        why = f"{n} cases, {MIN_CASES} are needed"
        return AgreementRow(model, None, n, None, None, None, note=why)
    if np.ptp(agreed) == 0 or np.ptp(dices) == 0:
        return AgreementRow(model, None, n, None, None, None, note="the cases do not differ")
    from scipy.stats import spearmanr

    value = float(spearmanr(agreed, dices).statistic)
    if len(set(patients)) < n or abs(value) >= 1:
        why = "patients with several cases" if abs(value) < 1 else "the ranks are the same"
        return AgreementRow(model, None, n, value, None, None, note=f"no interval: {why}")
    half = Z_95 * np.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return AgreementRow(model, None, n, value, float(low), float(high), BY_BONETT)
