"""How often tests and intervals are wrong where a class has few cases.

Two made-up models of equal AUC on 40 cases of one class and few of the other: how often DeLong's
paired test and the paired bootstrap call them different, and how often the score table's interval
of one misses its true AUC. The reason for `gliofed.evaluation.paired.MIN_CASES_PER_CLASS`.
Takes a minute.

    python benchmarks/few_cases.py
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from gliofed.evaluation.comparison import ComparedSources, chance_comparison, compare_pair
from gliofed.evaluation.paired import PairedEstimate, PairedPredictions, paired_estimate

TRIALS, DRAWS, OTHERS = 1000, 400, 40


def answered(truth: np.ndarray, scores: np.ndarray, trial: int) -> PairedEstimate:
    """A figure of patients whose names, and so whose resamples, are the trial's own."""
    names = tuple(f"{trial}-{i:03d}" for i in range(len(truth)))
    keys = tuple((1, "external", "site", name) for name in names)
    found = np.column_stack([-scores, scores])
    classes = ("wildtype", "mutant")
    return paired_estimate(
        PairedPredictions("idh", "auc", classes, keys, names, truth, found), DRAWS
    )


def main() -> None:
    """Print a line a number of cases and a true AUC."""
    for rare in (5, 10, 20):
        for skill in (0.0, 1.2):
            rng = np.random.default_rng(rare)
            area = norm.cdf(skill / np.sqrt(2))
            truth = np.arange(rare + OTHERS) < rare
            wrong = np.zeros(3)
            for trial in range(TRIALS):
                shared = rng.normal(size=len(truth)) + skill * truth
                noise = rng.normal(size=(2, len(truth)))
                own, base = (answered(truth.astype(int), shared + n, trial) for n in noise)
                rows = compare_pair(own, base, ComparedSources("one", "other", "external", "all"))
                wrong[:2] += [row.p is not None and row.p < 0.05 for row in rows]
                alone = chance_comparison(
                    answered(truth.astype(int), shared, trial), "one", "external"
                )
                wrong[2] += not alone.low + 0.5 <= area <= alone.high + 0.5
            delong, drawn, missed = wrong / TRIALS
            print(
                f"{rare:3d} of the rare class, AUC {area:.2f} before noise: "
                f"called different by DeLong {delong:.1%}, by the bootstrap {drawn:.1%}; "
                f"intervals that miss {missed:.1%}"
            )


if __name__ == "__main__":
    main()
