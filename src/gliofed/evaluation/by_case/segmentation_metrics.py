"""The segmentation metrics: one line each, in the order of the score table."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.intervals.bootstrap import ratio, weighted_quantile
from gliofed.evaluation.intervals.estimate import (
    MetricEstimate,
    missing_estimate,
    resampled_estimate,
)
from gliofed.evaluation.intervals.sample import (
    PredictionSample,
    bootstrap_t_interval,
    order_statistic_interval,
)
from gliofed.evaluation.results import CaseResult

CaseQuantity = Callable[[CaseResult], float | None]
NO_MASK: Final = "no case with an expert mask"
NO_LESIONS: Final = "no case with a lesion that was counted"
NO_SURFACE: Final = "no case with a surface distance"


def _one(result: CaseResult) -> float:
    return 1.0


@dataclass(frozen=True)
class SegmentationMetric:
    """The sum of `above` over that of `below`, a mean if `below` is 1 a case; with a share, that
    quantile of `above`.

    above, below: a case's contribution; None if it is excluded. least, most: of all values.
    """

    id: str
    numerator: CaseQuantity
    denominator: CaseQuantity = _one
    quantile: float | None = None
    minimum: float = 0.0
    maximum: float = math.inf
    missing_note: str = NO_MASK


def segmentation_estimate(
    results: Sequence[CaseResult], measure: SegmentationMetric, replicates: int
) -> MetricEstimate:
    """The metric on the cases that enter it; the note counts the excluded predictions."""
    parts = [(r, measure.numerator(r), measure.denominator(r)) for r in results]
    used = [(r, a, b) for r, a, b in parts if a is not None and b is not None]
    above, below = (np.array([row[i] for row in used], float) for i in (1, 2))
    drawn = sum(r.dice is not None for r in results)
    if not below.any():
        return missing_estimate(len(used), measure.missing_note if drawn else NO_MASK)
    left = drawn - len(used) if measure.missing_note == NO_SURFACE else 0
    note = f"{left} predictions without a surface left out" if left > 0 else ""
    own = [r for r, _, _ in used]
    sample = PredictionSample.of(own, replicates)
    bounds = (measure.minimum, measure.maximum)
    if (share := measure.quantile) is not None:
        return resampled_estimate(
            own,
            sample,
            lambda w: weighted_quantile(above, w, share),
            lambda value, again: order_statistic_interval(sample, above, share, bounds, again),
            note,
        )
    return resampled_estimate(
        own,
        sample,
        lambda w: ratio(w @ above, w @ below),
        lambda value, again: bootstrap_t_interval(sample, above, below, bounds),
        note,
    )


def _volume_error(result: CaseResult) -> float | None:
    predicted, true = result.volume_ml, result.volume_true_ml
    return None if predicted is None or true is None else predicted - true


def _percent_error(result: CaseResult) -> float | None:
    error, true = _volume_error(result), result.volume_true_ml
    return 100 * error / true if error is not None and true else None


def _size(amount: CaseQuantity) -> CaseQuantity:
    def of(result: CaseResult) -> float | None:
        found = amount(result)
        return None if found is None else abs(found)

    return of


def _lesions_true(result: CaseResult) -> float | None:
    return None if result.lesions is None else float(result.lesions.true)


def _lesions_found(result: CaseResult) -> float | None:
    return None if result.lesions is None else float(result.lesions.detected)


def _lesions_false(result: CaseResult) -> float | None:
    return None if result.lesions is None else float(result.lesions.false)


SEGMENTATION_METRICS: Final = (
    SegmentationMetric("dice", lambda r: r.dice, maximum=1.0),
    SegmentationMetric("dice_median", lambda r: r.dice, quantile=0.5, maximum=1.0),
    SegmentationMetric("dice_p10", lambda r: r.dice, quantile=0.1, maximum=1.0),
    SegmentationMetric("hd95_mm", lambda r: r.hd95_mm, missing_note=NO_SURFACE),
    SegmentationMetric(
        "hd95_mm_median", lambda r: r.hd95_mm, quantile=0.5, missing_note=NO_SURFACE
    ),
    SegmentationMetric(
        "lesion_sensitivity",
        _lesions_found,
        denominator=_lesions_true,
        maximum=1.0,
        missing_note=NO_LESIONS,
    ),
    SegmentationMetric("false_lesions", _lesions_false, missing_note=NO_LESIONS),
    SegmentationMetric("volume_error_ml", _volume_error, minimum=-math.inf),
    SegmentationMetric("volume_error_abs_ml", _size(_volume_error)),
    SegmentationMetric("volume_error_percent", _percent_error, minimum=-100.0),
    SegmentationMetric("volume_error_abs_percent", _size(_percent_error)),
)
