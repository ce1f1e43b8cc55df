"""What record-level differential privacy costs: Dice and mean AUC by epsilon, with intervals.

`tcga`: the crops of `studies/tcga-roi.toml`; the 69 patients of Henry Ford are the test, the 73 of
the other six hospitals train. `phantom`: 240 synthetic patients of a hospital train, 100 of another
one are the test, voxels of 7 mm. One cell is one training; finished cells are kept in `--out`.

    python benchmarks/privacy_price.py DATA --out DIR --store DIR [--seeds 1 2 3] [--only NAME]

Each training draws patients by Poisson sampling, clips each patient's gradient and takes the steps
of the federation's server, with the noise as the sum of all sites has it:

    plain      no noise, no clipping (epsilon infinite)
    clipped    no noise (epsilon infinite)
    sum-E      the noise for epsilon E once in the sum, as with secure sums
    sites-E    each of seven sites adds that noise whole, as without secure sums
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from attacks import TEST, WIDTHS, figures, results_of

from gliofed.data.formats.registry import read_sites
from gliofed.data.phantom import PhantomHospital, write_phantom
from gliofed.data.store import PreparedCase
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.demo import demo_study
from gliofed.federated.noise.accounting import noise_for
from gliofed.federated.noise.site_rounds import NoisyGradients
from gliofed.models.network import build_net
from gliofed.models.optimiser import clipped_step, learning_rate, make_optimiser
from gliofed.models.presets import PRESETS
from gliofed.privacy_config import PrivacyConfig
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import DataConfig, GridConfig, LossConfig, Study, TrainingConfig, load_study

EPSILONS: Final = (16, 8, 4, 2)
SITES: Final = 7
BATCH: Final = 24
EPOCHS: Final = 20
RATES: Final[Mapping[bool, float]] = {False: 2.8e-3, True: 1e-3}
"""Learning rate without noise, and with it; that with it was tried once, at epsilon 8."""
DELTA: Final = 1e-3


def phantom(out: Path) -> Study:
    """The demo's study on two other phantom hospitals, which are written to `out`."""
    root = out / "hospitals"
    write_phantom(root, [PhantomHospital("train", 240), PhantomHospital("test", 100)], 1)
    demo = demo_study(root)
    return dataclasses.replace(
        demo,
        name="phantom",
        data=DataConfig(root, ("train",), ("test",), holdout=0, synthetic=True),
        grid=GridConfig(spacing_mm=(7.0,) * 3, patch=(24,) * 3),
        train=TrainingConfig(),
        loss=LossConfig(),
    )


def with_privacy(study: Study, cell: str, patients: int) -> Study:
    """The study with the settings of a cell."""
    noisy = "-" in cell
    train = dataclasses.replace(study.train, epochs=EPOCHS, batch=BATCH, lr=RATES[noisy])
    noise = 0.0
    if noisy:
        where, epsilon = cell.split("-")
        rounds = EPOCHS * -(-patients // BATCH)
        noise = noise_for(float(epsilon), DELTA, BATCH / patients, rounds)
        noise *= SITES**0.5 if where == "sites" else 1.0
    clip = 1e9 if cell == "plain" else 1.0
    privacy = PrivacyConfig(clip, patients, DELTA, noise=noise)
    data = dataclasses.replace(study.data, train=("all",))
    return dataclasses.replace(study, train=train, privacy=privacy, data=data)


def trained(study: Study, cases: Sequence[PreparedCase], seed: int) -> Mapping[str, torch.Tensor]:
    """The weights after the last round."""
    net = build_net(study.net, seed)
    parameters = dict(net.named_parameters())
    optimiser = make_optimiser(parameters, study.train)
    gradients = NoisyGradients("all", cases, study, seed, this_machine())
    rounds = gradients.mechanism.rounds
    for number in range(rounds):
        sent = gradients.compute(net, parameters, number)
        for name, parameter in parameters.items():
            parameter.grad = sent[name]
        clipped_step(
            parameters, optimiser, learning_rate(study.train, number, rounds), study.train.clip
        )
    return {k: p.detach() for k, p in parameters.items()}


def main() -> None:
    """Train the cells that are missing; print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=("tcga", "phantom"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of cells' names")
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    PRESETS["small"] = dataclasses.replace(PRESETS["small"], widths=WIDTHS)  # type: ignore[index]
    tcga = args.data == "tcga"
    study = (
        load_study(Path(__file__).parents[1] / "studies/tcga-roi.toml")
        if tcga
        else phantom(args.out)
    )
    study = dataclasses.replace(study, models=("federated",))
    found = prepare_study_cases(study, read_sites(study.data), args.store, NO_PROGRESS)
    sites = {s: [found.prepared[str(c)] for c in cases] for s, cases in found.sites.items()}
    test = sites.pop(TEST if tcga else "test")
    cases = [c for own in sites.values() for c in own]
    patients = len({c.case.patient for c in cases})
    names = ["plain", "clipped", *(f"sum-{e}" for e in EPSILONS), *(f"sites-{e}" for e in EPSILONS)]
    for seed in args.seeds:
        for cell in [n for n in names if any(part in n for part in args.only)]:
            path = args.out / f"{args.data}-{cell}-{seed}.json"
            if not path.exists():
                started, own = time.process_time(), with_privacy(study, cell, patients)
                weights = trained(own, cases, seed)
                facts = figures(results_of(weights, own, test, seed))
                facts |= {"cpu_seconds": round(time.process_time() - started)}
                facts |= {"patients": patients, "noise": own.privacy.noise}
                write_text(path, json.dumps(facts))
            facts = json.loads(path.read_text())
            kept = {k: v for k, v in facts.items() if k not in ("probabilities", "dice_by_case")}
            print(args.data, cell, seed, json.dumps(kept), flush=True)


if __name__ == "__main__":
    main()
