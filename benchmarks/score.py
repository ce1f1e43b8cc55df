"""Seconds to score a table of predictions, and AUC intervals beside scikit-learn with SciPy.

The table: made-up patients of as many centres, four markers, age and sex, a tenth held out. First
the whole command `gliofed score` in a process of its own, start-up included; then only the AUC's
bootstrap interval of each marker over all external cases, beside `scipy.stats.bootstrap` of
`sklearn.metrics.roc_auc_score` with as many resamples, taking turns. Values of both must agree.

    python benchmarks/score.py [--patients 2000] [--centres 20] [--turns 3]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from gliofed.evaluation.intervals import bootstrap
from gliofed.evaluation.paired import paired_estimate, paired_predictions
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS

RESAMPLES = 2000
SHARES = {
    "idh": (0.7, 0.3),
    "codel_1p19q": (0.85, 0.15),
    "mgmt": (0.5, 0.5),
    "grade": (0.2, 0.2, 0.6),
}
KNOWN = 0.8
SKILL = 1.2


def made_up_table(patients: int, centres: int) -> list[list[str]]:
    """Header and rows; the label of a marker of two classes is unknown in a fifth."""
    rng = np.random.default_rng(0)
    rows: list[list[str]] = []
    header = ["patient", "site", "role", "age", "sex"]
    for marker in MARKERS:
        header += [f"{marker.id}_true", *(f"{marker.id}_p_{c}" for c in marker.classes)]
    for n in range(patients):
        role = "holdout" if n % 10 == 0 else "external"
        row = [
            f"p{n:06d}",
            f"centre{n % centres:03d}",
            role,
            f"{rng.uniform(20, 85):.0f}",
            "FM"[n % 2],
        ]
        for marker in MARKERS:
            truth = int(rng.choice(len(marker.classes), p=SHARES[marker.id]))
            logits = rng.normal(size=len(marker.classes)) + SKILL * (
                np.arange(len(marker.classes)) == truth
            )
            found = np.exp(logits) / np.exp(logits).sum()
            known = marker.id == "grade" or rng.random() < KNOWN
            row += [marker.classes[truth] if known else "n/a", *(f"{p:.6f}" for p in found)]
        rows.append(row)
    return [header, *rows]


def command(table: Path, out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of the whole command."""
    before, start = os.times(), time.perf_counter()
    words = [sys.executable, "-m", "gliofed.cli.main"]
    program = Path(sys.executable).with_name("gliofed")
    words = [str(program)] if program.exists() else words
    subprocess.run(
        [*words, "score", str(table), "--out", str(out)], check=True, stdout=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return wall, cpu


def by_gliofed(results: list[CaseResult]) -> list[float | None]:
    """The AUCs; resamples are drawn anew."""
    bootstrap._DRAWN = bootstrap._DrawCache(0)
    bootstrap._weights.cache_clear()
    return [paired_estimate(paired_predictions(results, m.id), RESAMPLES).value for m in MARKERS]


def by_scipy(results: list[CaseResult]) -> list[float]:
    """The AUCs; of three classes the mean of one against the rest."""
    out = []
    for marker in MARKERS:
        own = paired_predictions(results, marker.id)
        found = own.scores[:, 1] if len(own.classes) == 2 else own.scores

        def area(
            index: np.ndarray, truth: np.ndarray = own.truth, found: np.ndarray = found
        ) -> float:
            return float(roc_auc_score(truth[index], found[index], multi_class="ovr"))

        stats.bootstrap(
            (np.arange(len(own.truth)),), area, n_resamples=RESAMPLES, vectorized=False,
            method="percentile", rng=np.random.default_rng(1),
        )  # fmt: skip
        out.append(area(np.arange(len(own.truth))))
    return out


def timed(
    work: Callable[[list[CaseResult]], object], results: list[CaseResult]
) -> tuple[float, object]:
    start = time.perf_counter()
    found = work(results)
    return time.perf_counter() - start, found


def main() -> None:
    """Print one line a measurement."""
    options = argparse.ArgumentParser()
    options.add_argument("--patients", type=int, default=2000)
    options.add_argument("--centres", type=int, default=20)
    options.add_argument("--turns", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "model.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows(made_up_table(given.patients, given.centres))
        print(
            f"{given.patients} patients, {given.centres} centres, {len(MARKERS)} markers, "
            f"{RESAMPLES} resamples"
        )
        whole = [command(table, Path(folder) / "out") for _ in range(given.turns)]
        walls, cpus = zip(*whole, strict=True)
        print(
            f"gliofed score: {median(walls):.1f} s ({min(walls):.1f} to {max(walls):.1f}), "
            f"CPU {median(cpus):.1f} s"
        )
        every = parse_predictions(table.read_text(), str(table), "model")
    results = [r for r in every if r.role == "external"]
    ours, peers, ratios = [], [], []
    for _ in range(given.turns):
        own, values = timed(by_gliofed, results)
        peer, expected = timed(by_scipy, results)
        assert np.allclose(values, expected, atol=1e-12), (values, expected)
        ours.append(own)
        peers.append(peer)
        ratios.append(peer / own)
    print(
        f"AUC intervals of {len(MARKERS)} markers, n = {len(results)}: "
        f"gliofed {median(ours):.2f} s, "
        f"scikit-learn and scipy.stats.bootstrap {median(peers):.2f} s, ratio {median(ratios):.1f} "
        f"({min(ratios):.1f} to {max(ratios):.1f})"
    )


if __name__ == "__main__":
    main()
