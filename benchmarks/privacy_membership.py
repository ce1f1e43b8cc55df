"""Who can be told from a final model to have been trained on, by the defence it was trained with.

The crops of `studies/tcga-roi.toml`; UCSF is the external hospital. At the other six, about half
of the patients are held out, drawn anew by each seed, so that about as many are members as are not.
All cells train as many passes over the patients, without augmentation or dropped sequences, so that
a network without a defence learns its patients by heart. `gliofed privacy audit` attacks each cell.

    python benchmarks/privacy_membership.py --out DIR --store DIR [--seeds 1 2 3] [--only NAME]

    plain        batches of 8, no defence
    secure-sum   the same, the server opens sums of the sites' gradients only
    batch-32     batches of 32, no defence
    epsilon-E    `[privacy]` with the noise for epsilon E, once in the sum of all sites
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Final

import torch
from attacks import STUDY, WIDTHS

from gliofed.evaluation.privacy.rows import PrivacyRow
from gliofed.experiments.privacy.audit import AuditOptions, audit_privacy
from gliofed.experiments.run import run_study
from gliofed.experiments.run_context import RunOptions
from gliofed.models.presets import PRESETS
from gliofed.privacy_config import PrivacyConfig
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import Study, load_study

EXTERNAL: Final = "ucsf"
HELD_OUT: Final = 0.5
PATIENTS: Final = 65
"""Training patients that `[privacy]` states: about as many as a seed trains on."""
EPOCHS: Final = 30
DELTA: Final = 1e-3
NOISY_RATE: Final = 1e-3
CELLS: Final = ("plain", "epsilon-8", "batch-32", "secure-sum")
SHOWN: Final = ("auc", "tpr_at_fpr_0.1")


def study_of(cell: str, seeds: tuple[int, ...]) -> Study:
    """The study of a cell."""
    study = load_study(STUDY)
    sites = tuple(s for s in study.data.train if s != EXTERNAL)
    data = dataclasses.replace(
        study.data, train=sites, external=(EXTERNAL,), leave_one_out=(), holdout=HELD_OUT,
        features=(),
    )  # fmt: skip
    train = dataclasses.replace(study.train, epochs=EPOCHS, batch=8, augment=0.0, drop_sequence=0.0)
    study = dataclasses.replace(
        study,
        name=f"membership-{cell}",
        models=("federated",),
        seeds=seeds,
        data=data,
        train=train,
        score=dataclasses.replace(study.score, bootstrap=100, mirror=False),
    )
    kind, _, value = cell.rpartition("-")
    if cell == "plain":
        return study
    if kind == "batch":
        return dataclasses.replace(study, train=dataclasses.replace(train, batch=int(value)))
    summed = dataclasses.replace(study.federation, privacy="secure-sum")
    if cell == "secure-sum":
        return dataclasses.replace(study, federation=summed)
    return dataclasses.replace(
        study,
        federation=summed,
        train=dataclasses.replace(train, batch=24, lr=NOISY_RATE),
        privacy=PrivacyConfig(clip=1.0, patients=PATIENTS, delta=DELTA, epsilon=float(value)),
    )


def text_of(row: PrivacyRow) -> str:
    """One figure with its interval."""
    low, high = (f"{v:.2f}" if v is not None else "-" for v in (row.low, row.high))
    value = "-" if row.value is None else f"{row.value:.2f}"
    return f"{value} ({low} to {high}; chance {row.chance}; n {row.n})"


def main() -> None:
    """Train the cells that are missing, attack them, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of cells' names")
    args = parser.parse_args()
    torch.set_num_threads(1)
    PRESETS["small"] = dataclasses.replace(PRESETS["small"], widths=WIDTHS)  # type: ignore[index]
    for cell in [c for c in CELLS if any(part in c for part in args.only)]:
        started = time.process_time()
        folder = args.out / cell
        run_study(study_of(cell, tuple(args.seeds)), folder, NO_PROGRESS, RunOptions(args.store))
        options = AuditOptions(attacks=("membership",), store=args.store)
        rows = audit_privacy(folder, options).rows
        print(f"{cell}: {time.process_time() - started:.0f} CPU seconds")
        for row in rows:
            if row.metric in SHOWN:
                print(f"  {row.attack} {row.task} {row.metric} {text_of(row)}", flush=True)


if __name__ == "__main__":
    main()
