"""Memory and seconds of regressions by sums: nine hospitals of the study's size, and 100 of 1,000.

    python benchmarks/radiomics_scale.py [FEATURES]

Each scale runs in a process of its own, on one thread whose CPU time is counted, with made-up
features (default: 15, the common ones with age and sex) and labels of every marker. One training is
every marker's regression with its penalty by cross-validation: what one hospital held out costs for
one set of features. Printed are also the bytes of the largest message of a site: loss, gradient and
Hessian of the grade.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from multiprocessing import get_context

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np

from gliofed.markers import BY_ID
from gliofed.radiomics.feature_table import FeatureSubject, FeatureTable
from gliofed.radiomics.regression import train_regressions
from gliofed.types import Labels, Person

NINE = (611, 318, 69, 22, 14, 13, 12, 8, 4)
LARGE = (1000,) * 100
SIGNAL = 0.6


def site_table(site: int, size: int, features: int) -> FeatureTable:
    """A hospital whose first features tell every marker."""
    rng = np.random.default_rng(site)
    values = rng.normal(size=(size, features))
    hidden = SIGNAL * values[:, :4].sum(1) + rng.normal(size=(size, len(BY_ID))).T
    subjects = []
    for row in range(size):
        labels = {
            name: m.classes[int(np.searchsorted([0.0, 1.5][: len(m.classes) - 1], hidden[k, row]))]
            for k, (name, m) in enumerate(BY_ID.items())
        }
        name = f"s{site}-{row}"
        subjects.append(FeatureSubject(name, f"s{site}", name, Labels(labels), Person()))
    return FeatureTable(tuple(subjects), tuple(f"f{n}" for n in range(features)), values)


def measure(sizes: tuple[int, ...], features: int, harmonised: bool) -> None:
    """Print one line of the table."""
    sites = [site_table(k, n, features) for k, n in enumerate(sizes)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    model = train_regressions(sites, harmonised=harmonised)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    width = len(BY_ID["grade"].classes) * (1 + features)
    message = 8 * (1 + width + width**2)
    assert all(not m.note for m in model.markers.values())
    print(
        f"| {len(sizes)} | {sum(sizes):,} | {features} | {'yes' if harmonised else 'no'} | "
        f"{seconds:.1f} | {peak / 1024:.0f} | {(peak - before) / 1024:.0f} | "
        f"{message / 1024:.1f} |",
        flush=True,
    )


def main() -> None:
    """Each scale, with and without ComBat."""
    features = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print("| sites | patients | features | ComBat | CPU s | peak MiB | of training | message KiB |")
    print("|---|---|---|---|---|---|---|---|")
    for sizes in (NINE, LARGE):
        for harmonised in (False, True):
            job = get_context("spawn").Process(target=measure, args=(sizes, features, harmonised))
            job.start()
            job.join()
            if job.exitcode:
                raise SystemExit(job.exitcode)


if __name__ == "__main__":
    main()
