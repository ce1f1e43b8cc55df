"""How often a 95 % interval of the score table holds the truth, and a plain percentile one does.

    python benchmarks/coverage.py [TRIALS] [AUC]

Cases are drawn again and again from a world whose figures are known: two normal scores that give
the AUC (default 0.80), 40 % of the second class, calibrated probabilities; outlines of which 8 %
fail. The standard error of a share near 95 % is 0.5 points with 2000 trials.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from gliofed.evaluation.by_case.marker_metrics import MARKER_METRICS, MarkerPredictions
from gliofed.evaluation.intervals.bootstrap import (
    Interval,
    percentile_interval,
    ratio,
    weighted_quantile,
)
from gliofed.evaluation.intervals.sample import (
    PredictionSample,
    bootstrap_t_interval,
    order_statistic_interval,
)

SIZES = (50, 200)
REPLICATES = 600
PREVALENCE = 0.4
FAILED = 0.08
LARGE = 2_000_000
SKIPPED = ("calibration_error",)  # has no interval
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """Of n cases. true, found, false: lesions."""

    dice: Floats
    hd95: Floats
    volume_error: Floats
    true: Floats
    found: Floats
    false: Floats


def outlines(rng: np.random.Generator, n: int) -> Outlines:
    good = rng.random(n) >= FAILED
    true = 1 + rng.poisson(0.5, n)
    return Outlines(
        dice=np.where(good, rng.beta(12, 2.2, n), rng.beta(1, 4, n)),
        hd95=rng.gamma(1.2, 6, n) + rng.lognormal(0.5, 1, n),
        volume_error=np.abs(rng.normal(0, 8, n)),
        true=true.astype(float),
        found=rng.binomial(true, np.where(good, 0.9, 0.3)).astype(float),
        false=rng.poisson(0.4, n).astype(float),
    )


def answers(rng: np.random.Generator, n: int, apart: float) -> tuple[NDArray[np.int64], Floats]:
    truth = (rng.random(n) < PREVALENCE).astype(np.int64)
    score = rng.normal(size=n) + apart * truth
    chance = expit(logit(PREVALENCE) + apart * score - apart**2 / 2)
    return truth, np.stack([1 - chance, chance], 1)


def truths(apart: float) -> dict[str, float]:
    """Every figure of the world itself: by formula where there is one, else of many cases."""
    rng = np.random.default_rng(0)
    truth, found = answers(rng, LARGE, apart)
    many = outlines(rng, LARGE)
    edge = apart / 2 - logit(PREVALENCE) / apart  # the score at probability 0.5
    sensitivity, specificity = norm.sf(edge - apart), norm.cdf(edge)
    area, at = norm.cdf(apart / 2**0.5), norm.ppf(0.9)
    return {
        "auc": area,
        "auc_delong": area,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "sensitivity_at_specificity_90": norm.cdf(apart - at),
        "specificity_at_sensitivity_90": norm.cdf(apart - at),
        "brier": float(((found[:, 1] - truth) ** 2).mean()),
        "calibration_slope": 1,
        "calibration_intercept": 0,
        "calibration_in_the_large": 0,
        "dice": many.dice.mean(),
        "dice_median": np.median(many.dice),
        "dice_p10": np.quantile(many.dice, 0.1),
        "hd95_mm": many.hd95.mean(),
        "hd95_mm_median": np.median(many.hd95),
        "volume_error_abs_ml": 8 * (2 / np.pi) ** 0.5,
        "lesion_sensitivity": many.found.sum() / many.true.sum(),
        "false_lesions": 0.4,
    }


def trial(rng: np.random.Generator, n: int, apart: float) -> dict[str, tuple[Interval, Interval]]:
    """Each measure's interval as in the table, and the percentile one of the same replicates."""
    drawn = rng.multinomial(n, np.full(n, 1 / n), REPLICATES)
    sample = PredictionSample(tuple(map(str, range(n))), np.zeros(n, np.int64), np.arange(n), drawn)
    truth, found = answers(rng, n, apart)
    asked = MarkerPredictions((), sample, truth, found, ("no", "yes"), REPLICATES)
    out = {}
    for measure in MARKER_METRICS:
        if measure.classes in (None, 2) and measure.id not in SKIPPED:
            figure = measure.estimate(asked)
            out[measure.id] = figure.interval, percentile_interval(figure.replicates)
    own, ones = outlines(rng, n), np.ones(n)
    for name, above, below, most in (
        ("dice", own.dice, ones, 1.0),
        ("hd95_mm", own.hd95, ones, np.inf),
        ("volume_error_abs_ml", own.volume_error, ones, np.inf),
        ("lesion_sensitivity", own.found, own.true, 1.0),
        ("false_lesions", own.false, ones, np.inf),
    ):
        plain = percentile_interval(ratio(drawn @ above, drawn @ below))
        out[name] = bootstrap_t_interval(sample, above, below, (0.0, most)), plain
    for name, values, share, most in (
        ("dice_median", own.dice, 0.5, 1.0),
        ("dice_p10", own.dice, 0.1, 1.0),
        ("hd95_mm_median", own.hd95, 0.5, np.inf),
    ):
        again = weighted_quantile(values, drawn, share)
        out[name] = (
            order_statistic_interval(sample, values, share, (0.0, most), again),
            percentile_interval(again),
        )
    return out


def coverage(trials: int, n: int, apart: float) -> dict[str, tuple[float, float, float, float]]:
    """Measure to: share that holds the truth in percent, median width, share without an interval,
    and the share of percentile intervals that hold it."""
    expected = truths(apart)
    found = defaultdict(list)
    for number in range(trials):
        for name, pair in trial(np.random.default_rng([n, number]), n, apart).items():
            found[name].append(pair)
    out = {}
    for name, pairs in found.items():
        shares, widths = [], []
        for own in zip(*pairs, strict=True):
            there = [i for i in own if i.low is not None and i.high is not None]
            held = [i.low <= expected[name] <= i.high for i in there]
            shares.append(100 * np.mean(held) if held else np.nan)
            widths.append(np.median([i.high - i.low for i in there]) if there else np.nan)
        none = 100 * np.mean([own.low is None for own, _ in pairs])
        out[name] = (shares[0], widths[0], none, shares[1])
    return out


def main(trials: int, area: float) -> None:
    apart = float(norm.ppf(area)) * 2**0.5
    expected = truths(apart)
    for n in SIZES:
        print(f"\nn = {n}, AUC {area}, {trials} trials, {REPLICATES} replicates")
        print("measure                         truth  holds %   width  none %  percentile holds %")
        for name, (holds, width, none, plain) in coverage(trials, n, apart).items():
            figures = f"{expected[name]:8.3f} {holds:8.1f} {width:7.3f} {none:7.1f}"
            print(f"{name:29s}{figures} {plain:12.1f}", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else 2000, float(given[1]) if len(given) > 1 else 0.80)
