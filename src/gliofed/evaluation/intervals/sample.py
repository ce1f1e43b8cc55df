"""A sample of predictions: a metric's value, its replicates, and its confidence interval.

The interval of each metric was chosen by measured coverage with 50 and 200 cases:
docs/adr/0020-intervals-that-cover.md. The unit is the patient, with all cases and all seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, expit, logit

from gliofed.evaluation.by_site_sums.sums import auc_sums
from gliofed.evaluation.intervals.analytic import (
    Z_95,
    auc_interval,
    mean_recall_interval,
    wilson_bounds,
)
from gliofed.evaluation.intervals.bootstrap import (
    MAX_MISSING,
    TOO_FEW,
    Interval,
    Values,
    Weights,
    patient_resamples,
    percentile_interval,
    unit_weights,
)
from gliofed.evaluation.metrics.discrimination import ClassIndices, Probabilities
from gliofed.evaluation.results import CaseResult

BY_LOGIT: Final = "bootstrap standard error, logit scale"
BY_STUDENT: Final = "bootstrap-t"
BY_WILSON: Final = "Wilson 1927"
BY_ORDER: Final = "order statistics, interpolated (Beran & Hall 1993)"
_LEAST_ERROR: Final = 1e-9
_NO_SPREAD: Final = "no interval: the cases do not differ"

Metric = Callable[[Weights], Values]


@dataclass(frozen=True)
class PredictionSample:
    """n predictions of one model. seeds, patients: (n,) index of each prediction's seed and
    patient.

    cases: (n,) "site/id". resamples: (replicates, n) count of each prediction in each resample;
    empty with one patient.
    """

    cases: tuple[str, ...]
    seeds: NDArray[np.int64]
    patients: NDArray[np.int64]
    resamples: Weights

    @classmethod
    def of(cls, results: Sequence[CaseResult], replicates: int) -> PredictionSample:
        """A sample of at least one result. Seeds may hold out different patients; a resample draws
        from all, and each seed uses its own."""
        cases = [f"{r.site}/{r.case}" for r in results]
        return cls.named(cases, [r.seed for r in results], [r.patient for r in results], replicates)

    @classmethod
    def named(
        cls, cases: Sequence[str], seeds: Sequence[int], patients: Sequence[str], replicates: int
    ) -> PredictionSample:
        """As `of`, from each prediction's case, seed and patient."""
        _, whose = np.unique(patients, return_inverse=True)
        _, repeats = np.unique(seeds, return_inverse=True)
        drawn = patient_resamples(patients, replicates if whose.max() else 0)
        return cls(tuple(cases), repeats, whose, drawn)

    @property
    def repeats(self) -> int:
        """Number of seeds."""
        return int(self.seeds.max()) + 1

    @property
    def n(self) -> int:
        """Number of cases."""
        return len(set(self.cases))

    def value(self, metric: Metric) -> float:
        """Mean over seeds; NaN if one seed has no value."""
        return float(self._over_seeds(metric, unit_weights(len(self.cases)))[0])

    def replicates(self, metric: Metric) -> Values:
        """The metric on every resample."""
        return self._over_seeds(metric, self.resamples)

    def _over_seeds(self, metric: Metric, weights: Weights) -> Values:
        if self.repeats == 1:
            return metric(weights)
        each = [metric(weights * (self.seeds == s)) for s in range(self.repeats)]
        found: Values = np.mean(each, axis=0)
        return found


def logit_interval(value: float, again: Values) -> Interval:
    """Of an AUC: 1.96 standard errors of the replicates to both sides, on the logit scale. None
    at 0 and 1, where replicates do not differ."""
    if not 0 < value < 1:
        return Interval(None, None, "no interval: all pairs are won, or all lost")
    found = again[np.isfinite(again)]
    if len(found) <= (1 - MAX_MISSING) * len(again):
        return Interval(None, None, TOO_FEW)
    error = float(found.std())
    if error <= _LEAST_ERROR:
        return Interval(None, None, _NO_SPREAD)
    half = Z_95 * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half, half]))
    return Interval(float(low), float(high), method=BY_LOGIT)


def resampled_auc_interval(
    sample: PredictionSample, truth: ClassIndices, found: Probabilities, value: float, again: Values
) -> Interval:
    """Of an AUC: `logit_interval`. Where all pairs are won, or all lost: `auc_interval` of the
    first seed, as several perfect seeds carry no more information than one."""
    if 0 < value < 1:
        return logit_interval(value, again)
    first = sample.seeds == 0
    return auc_interval(auc_sums(truth[first], found[first]))


def varied_percentile_interval(again: Values) -> Interval:
    """For any metric: the middle 95 % of the replicates; none if they do not differ."""
    found = percentile_interval(again)
    if found.low is not None and found.low == found.high:
        return Interval(None, None, _NO_SPREAD)
    return found


def delong_interval(
    sample: PredictionSample, truth: ClassIndices, found: Probabilities
) -> Interval:
    """Of an AUC: DeLong's variance, of several seeds that of the mean of correlated AUCs.

    DeLong's cases are independent: there is no interval if a patient has several, or if the seeds
    have different cases.
    """
    of_patient = Counter(zip(sample.seeds, sample.patients, strict=True))
    if max(of_patient.values()) > 1:
        return Interval(None, None, "no interval: patients with several cases")
    order = [np.nonzero(sample.seeds == s)[0] for s in range(sample.repeats)]
    order = [own[np.argsort([sample.cases[i] for i in own])] for own in order]
    if len({tuple(sample.cases[i] for i in own) for own in order}) > 1:
        return Interval(None, None, "no interval: the seeds tested different cases")
    return auc_interval(auc_sums(truth[order[0]], *(found[own] for own in order)))


def bootstrap_t_interval(
    sample: PredictionSample, above: Values, below: Values, bounds: tuple[float, float]
) -> Interval:
    """Of the quotient of two sums, as a mean or a rate is, cut to `bounds`: bootstrap-t.

    above, below: (n,), contribution of each prediction. Each replicate's distance from the value is
    taken in its own standard errors (Efron & Tibshirani 1993, section 12.5); replicates without one
    are excluded.
    """
    value, errors = _quotients(sample, above, below, _by_patient(sample))
    at, own = float(value[0]), float(errors[0])
    if own <= _LEAST_ERROR * max(1.0, abs(at)):
        return Interval(None, None, _NO_SPREAD)
    values, spread = _quotients(sample, above, below, _by_patient(sample, sample.resamples))
    fits = np.isfinite(values) & (spread > _LEAST_ERROR * max(1.0, abs(at)))
    if fits.sum() <= (1 - MAX_MISSING) * len(values):
        return Interval(None, None, TOO_FEW)
    left, right = np.percentile((values[fits] - at) / spread[fits], [2.5, 97.5])
    low, high = max(bounds[0], at - right * own), min(bounds[1], at - left * own)
    return Interval(float(low), float(high), method=BY_STUDENT)


def wilson_interval(sample: PredictionSample, hits: Values, members: Values) -> Interval:
    """Of a fraction: Wilson's, with as many cases as would have its variance over patients."""
    share, n = _effective(sample, hits, members)
    low, high = wilson_bounds(share * n, n)
    return Interval(low, high, method=BY_WILSON)


def balanced_accuracy_interval(
    sample: PredictionSample, truth: ClassIndices, found: Probabilities
) -> Interval:
    """Of the mean recall over the classes that have cases: Wilson's of each, combined."""
    hit = (found.argmax(1) == truth).astype(float)
    parts = [_effective(sample, hit * (truth == c), (truth == c) * 1.0) for c in np.unique(truth)]
    return mean_recall_interval([share for share, _ in parts], [n for _, n in parts])[1]


def order_statistic_interval(
    sample: PredictionSample,
    values: Values,
    share: float,
    bounds: tuple[float, float],
    again: Values,
) -> Interval:
    """For a quantile: an interval between the values at two ranks, from the binomial count below
    it.

    Ranks are integers, so that each end is interpolated between two values by the probabilities of
    their ranks (Beran & Hall 1993, JRSS B 55:643); beyond the outermost value, it is that of
    `bounds`. With several seeds, the mean of their ends, a conservative choice. With several cases
    a patient, the percentile interval of the replicates `again`.
    """
    own = [np.sort(values[sample.seeds == s]) for s in range(sample.repeats)]
    if len(set(zip(sample.seeds, sample.patients, strict=True))) < len(values):
        return varied_percentile_interval(again)
    low, high = np.mean([_order_ends(v, share, bounds) for v in own], axis=0)
    if not np.isfinite(low + high):
        return Interval(None, None, "no interval: too few cases for this quantile")
    return Interval(float(low), float(high), method=BY_ORDER)


def _order_ends(ordered: Values, share: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Each end has a probability of 2.5 % to lie beyond the quantile."""
    low = _order_end(ordered, share, bounds[0])
    return low, -_order_end(-ordered[::-1], 1 - share, -bounds[1])


def _order_end(ordered: Values, share: float, bound: float) -> float:
    """The k-th value lies above the quantile where fewer than k cases lie below it."""
    n = len(ordered)
    cumulative = np.array([bdtr(k, n, share) for k in range(n)])  # of at most k cases
    rank = int((cumulative <= 0.025).sum())
    if rank == 0:
        return bound
    if rank == n:
        return float(ordered[-1])
    past = (0.025 - cumulative[rank - 1]) / (cumulative[rank] - cumulative[rank - 1])
    return float(ordered[rank - 1] + past * (ordered[rank] - ordered[rank - 1]))


def _by_patient(sample: PredictionSample, drawn: Weights | None = None) -> Weights:
    """(replicates, patients) count of each; one if no resamples are given."""
    count = int(sample.patients.max()) + 1
    if drawn is None:
        return unit_weights(count)
    _, first = np.unique(sample.patients, return_index=True)
    return drawn[:, first]


def _quotients(
    sample: PredictionSample, above: Values, below: Values, weights: Weights
) -> tuple[Values, Values]:
    """Each replicate's quotient, the mean over seeds, and its standard error over patients.

    A patient's share of the quotient's error is linear in what it adds to both sums (the delta
    method); the squares of the shares add up. weights: (replicates, patients).
    """
    parts, repeats = _parts(sample, above, below), sample.repeats
    drawn = weights.astype(float)
    totals = drawn @ parts
    with np.errstate(invalid="ignore", divide="ignore"):
        each = totals[:, :repeats] / totals[:, repeats:]
        slopes = np.concatenate([1 / totals[:, repeats:], -each / totals[:, repeats:]], 1) / repeats
    squares = (parts[:, :, None] * parts[:, None, :]).reshape(len(parts), -1)
    spread = (drawn @ squares).reshape(len(drawn), 2 * repeats, 2 * repeats)
    variance = np.einsum("ri,rij,rj->r", slopes, spread, slopes)
    patients = drawn.sum(1)
    variance *= patients / np.maximum(patients - 1, 1)
    return each.mean(1), np.sqrt(np.maximum(variance, 0))


def _parts(sample: PredictionSample, above: Values, below: Values) -> Values:
    """(patients, 2 seeds) contribution of each patient to both sums of each seed."""
    count, repeats = int(sample.patients.max()) + 1, sample.repeats
    out = np.zeros((count, 2 * repeats))
    np.add.at(out, (sample.patients, sample.seeds), above)
    np.add.at(out, (sample.patients, repeats + sample.seeds), below)
    return out


def _effective(sample: PredictionSample, hits: Values, members: Values) -> tuple[float, float]:
    """A fraction, and the number of independent cases that would have its variance.

    With one case a patient and one seed, the number of cases. If all or none are hits, there is no
    variance, and it is the number of patients.
    """
    value, error = _quotients(sample, hits, members, _by_patient(sample))
    share = float(value[0])
    concerned = int((np.bincount(sample.patients, members) > 0).sum())
    count = int(sample.patients.max()) + 1
    variance = float(error[0]) ** 2 * (count - 1) / max(count, 1)
    if not 0 < share < 1 or variance <= _LEAST_ERROR**2:
        return share, float(concerned)
    return share, min(share * (1 - share) / variance, float(members.sum()))
