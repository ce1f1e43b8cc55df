"""The training loop. Pooled, single-site and federated training all run this one."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gliofed.data.store import PreparedCase
from gliofed.models.network import MASK_TASK, MultiTaskNet
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study
from gliofed.training.loss import total_loss
from gliofed.training.optimiser import learning_rate
from gliofed.training.samples import Patch, collate, draw_sample
from gliofed.types import Batch, Stat

AHEAD = 8
"""Batches made ahead of an accelerator."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a fit needs beside network and cases.

    class_weights: marker id to one weight a class. seed: decides order, patches and augmentation.
    epochs: of the whole training, which the learning rate runs down over. batch: cases a step.
    """

    study: Study
    class_weights: Mapping[str, tuple[float, ...]]
    seed: int
    epochs: int
    batch: int


def fit_epoch(
    net: MultiTaskNet,
    optimiser: torch.optim.Optimizer,
    cases: Sequence[PreparedCase],
    plan: TrainingPlan,
    epoch: int,
    machine: Device,
    progress: Progress = NO_PROGRESS,
) -> Mapping[str, Stat]:
    """One pass over `cases`, changing `net` and `optimiser`; sums of each task's loss and "dice".

    The same epoch of the same plan does the same to the bit on the same CPU and thread count.
    A step whose loss or gradient is not finite changes nothing and is counted under "skipped".
    """
    train = plan.study.train
    batches = _order(len(cases), plan.batch, plan.seed, epoch)
    weights = {k: torch.tensor(v, device=machine.device) for k, v in plan.class_weights.items()}
    tasks = {MASK_TASK: plan.study.loss.mask, **plan.study.loss.markers}
    sums: dict[str, Stat] = defaultdict(Stat)
    net.train()
    torch.manual_seed(_number(plan.seed, "dropout", epoch))
    for index, batch in enumerate(_batches(cases, batches, plan, epoch, machine)):
        step = epoch * len(batches) + index
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(train, step, plan.epochs * len(batches))
        optimiser.zero_grad(set_to_none=True)
        with machine.autocast():
            answers = net(batch.image, batch.present)
        loss, stats = total_loss(answers, batch, tasks, weights, plan.study.loss.label_smoothing)
        stepped = loss is not None and _step(net, optimiser, loss, train.clip)
        for name, stat in stats.items() if stepped else ():
            sums[name] += stat
        if loss is not None and not stepped:
            sums["skipped"] += Stat(1, 1)
        progress.update(index + 1, len(batches), f"batch {index + 1} of {len(batches)}")
    return dict(sums)


def _step(net: MultiTaskNet, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> bool:
    """Backward, clip, step; False without a step where the gradient is not finite."""
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    if not bool(torch.isfinite(norm)):
        return False
    optimiser.step()
    return True


def _order(count: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """A shuffled pass over `count` cases in batches; the last may be smaller."""
    order = _rng(seed, "order", epoch).permutation(count).tolist()
    return [order[i : i + batch] for i in range(0, count, batch)]


def _batches(
    cases: Sequence[PreparedCase],
    batches: Sequence[Sequence[int]],
    plan: TrainingPlan,
    epoch: int,
    machine: Device,
) -> Iterator[Batch]:
    """The epoch's batches on the machine's device; made ahead by threads for an accelerator."""
    patch: Patch = plan.study.grid.patch

    def make(rows: Sequence[int]) -> Batch:
        chosen = [cases[r] for r in rows]
        draws = [
            draw_sample(c, patch, plan.study.train, _rng(plan.seed, f"draw/{r}", epoch))
            for r, c in zip(rows, chosen, strict=True)
        ]
        return collate(draws, chosen)

    if machine.device.type == "cpu":
        yield from map(make, batches)
        return
    with ThreadPoolExecutor(max_workers=AHEAD) as pool:
        waiting = deque(pool.submit(make, b) for b in batches[:AHEAD])
        for following in [*batches[AHEAD:], *([None] * len(batches[:AHEAD]))]:
            batch = waiting.popleft().result()
            if following is not None:
                waiting.append(pool.submit(make, following))
            yield _to(batch, machine.device)


def _to(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        image=batch.image.to(device),
        present=batch.present.to(device),
        mask=batch.mask.to(device),
        has_mask=batch.has_mask.to(device),
        labels=batch.labels.to(device),
        known=batch.known.to(device),
    )


def _number(seed: int, purpose: str, epoch: int) -> int:
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _rng(seed: int, purpose: str, epoch: int) -> np.random.Generator:
    return np.random.default_rng(_number(seed, purpose, epoch))
