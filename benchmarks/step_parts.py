"""Where the time of a training step goes, with a study's own cases, patch, batch and network.

    python benchmarks/step_parts.py STUDY --store DIR [--threads 1 2] [--steps 20]

STUDY: a study's file. Its hospitals' cases are prepared into DIR first. Parts of a step:

    samples     patches, augmentation and dropped sequences of the batch's cases
    forward     the network, and the loss of each task
    backward    gradients
    update      clipping and AdamW

One process for each number of threads, with the same batches. Seconds are medians over steps; a
part's share is its sum over that of all steps. The first two steps, which fill caches, are left
out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import torch

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import Split
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.plain_training import training_plan
from gliofed.experiments.run_context import RunContext
from gliofed.models.network import build_net
from gliofed.models.optimiser import clipped_step, make_optimiser
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import load_study
from gliofed.training import loop
from gliofed.training.loop import TrainingPlan, make_batches
from gliofed.training.loss import total_loss

PARTS: Final = ("samples", "forward", "backward", "update")
LEFT_OUT: Final = 2


def plan_of(path: Path, store: Path) -> TrainingPlan:
    """The plan of the study's pooled model on all its cases."""
    study = load_study(path)
    found = prepare_study_cases(study, read_sites(study.data), store, NO_PROGRESS)
    sites = {site: tuple(cases) for site, cases in found.sites.items()}
    run = ModelRun("pooled", 1, Split("all", sites, {}, (), ()), sites)
    return training_plan(RunContext(study, store, this_machine(), found.prepared), run)


def one(path: Path, store: Path, steps: int) -> None:
    """Time the steps in this process; print seconds of each part of each step as JSON."""
    keep_memory()
    plan = plan_of(path, store)
    net = build_net(plan.study.net, plan.seed).to(plan.machine.device).train()
    parameters = dict(net.named_parameters())
    optimiser = make_optimiser(parameters, plan.study.optimisation)
    batches = make_batches(plan, range(steps + LEFT_OUT))
    rows = []
    for _ in range(steps + LEFT_OUT):
        clock = [time.perf_counter()]
        batch = next(batches)
        clock.append(time.perf_counter())
        assert batch is not None
        optimiser.zero_grad(set_to_none=True)
        with plan.machine.autocast():
            output = net(batch.image, batch.present, batch.dropout)
        loss, _ = total_loss(output, batch, loop._scale(plan))
        clock.append(time.perf_counter())
        assert loss is not None
        loss.backward()
        clock.append(time.perf_counter())
        clipped_step(parameters, optimiser, plan.study.train.lr, plan.study.train.clip)
        clock.append(time.perf_counter())
        rows.append([b - a for a, b in itertools.pairwise(clock)])
    print(json.dumps(rows[LEFT_OUT:]))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("study", type=Path)
    asked.add_argument("--store", type=Path, required=True)
    asked.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    asked.add_argument("--steps", type=int, default=20)
    asked.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    own = asked.parse_args()
    if own.here:
        torch.set_num_threads(own.threads[0])
        one(own.study, own.store, own.steps)
        return
    print(f"| threads | a step, s | {' | '.join(PARTS)} |")
    print(f"|---:|---:|{'---:|' * len(PARTS)}")
    for threads in own.threads:
        done = subprocess.run(
            [sys.executable, __file__, str(own.study), "--store", str(own.store),
             "--threads", str(threads), "--steps", str(own.steps), "--here"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        rows = json.loads(done.stdout.splitlines()[-1])
        whole = sum(map(sum, rows))
        parts = [
            f"{statistics.median(column):.3f} ({100 * sum(column) / whole:.0f} %)"
            for column in zip(*rows, strict=True)
        ]
        print(f"| {threads} | {statistics.median(map(sum, rows)):.3f} | {' | '.join(parts)} |")


if __name__ == "__main__":
    main()
