"""The training loop, used by pooled, single-site and federated training alike."""

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
from gliofed.training.samples import collate, draw_sample
from gliofed.types import Batch, Stat

BATCHES_AHEAD = 8
"""Number of batches that threads prepare in advance for an accelerator."""


@dataclass(frozen=True)
class TrainingPlan:
    """The data and settings of a training, besides network and optimiser.

    class_weights: marker id to one loss weight a class. seed: determines order, patches,
    augmentation and dropout. epochs: of the complete training, over which the learning rate decays.
    batch: cases a step.
    """

    study: Study
    cases: Sequence[PreparedCase]
    class_weights: Mapping[str, tuple[float, ...]]
    seed: int
    epochs: int
    batch: int
    machine: Device


def fit_epoch(
    net: MultiTaskNet,
    optimiser: torch.optim.Optimizer,
    plan: TrainingPlan,
    epoch: int,
    progress: Progress = NO_PROGRESS,
) -> Mapping[str, Stat]:
    """Train `net` on every case once; return sums of each task's loss and of "dice".

    The same epoch of the same plan gives the same bits on the same CPU and thread count. A step
    whose loss or gradient is not finite changes no weight and is counted under "skipped".
    """
    train, loss_config, machine = plan.study.train, plan.study.loss, plan.machine
    batches = _shuffled_batches(plan, epoch)
    task_weights = {MASK_TASK: loss_config.mask, **loss_config.markers}
    class_weights = {
        marker: torch.tensor(values, device=machine.device)
        for marker, values in plan.class_weights.items()
    }
    sums: dict[str, Stat] = defaultdict(Stat)
    net.train()
    torch.manual_seed(_seed_of(plan.seed, "dropout", epoch))
    for index, batch in enumerate(_make_batches(plan, batches, epoch)):
        step = epoch * len(batches) + index
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(train, step, plan.epochs * len(batches))
        optimiser.zero_grad(set_to_none=True)
        with machine.autocast():
            output = net(batch.image, batch.present)
        loss, stats = total_loss(
            output, batch, task_weights, class_weights, loss_config.label_smoothing
        )
        if loss is not None:  # None: no case of the batch has a label or a mask
            if _step(net, optimiser, loss, train.clip):
                for name, stat in stats.items():
                    sums[name] += stat
            else:
                sums["skipped"] += Stat(1, 1)
        progress.update(index + 1, len(batches), f"batch {index + 1} of {len(batches)}")
    return dict(sums)


def _step(net: MultiTaskNet, optimiser: torch.optim.Optimizer, loss: Tensor, clip: float) -> bool:
    """Backward pass, gradient clipping, optimiser step; False if the gradient is not finite."""
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    if not bool(torch.isfinite(norm)):
        return False
    optimiser.step()
    return True


def _shuffled_batches(plan: TrainingPlan, epoch: int) -> list[list[int]]:
    """Indices of all cases, shuffled and cut into batches; the last may be smaller."""
    order = _generator(plan.seed, "order", epoch).permutation(len(plan.cases)).tolist()
    return [order[i : i + plan.batch] for i in range(0, len(order), plan.batch)]


def _make_batches(
    plan: TrainingPlan, batches: Sequence[Sequence[int]], epoch: int
) -> Iterator[Batch]:
    """The epoch's batches on the machine's device; threads prepare them in advance for a GPU."""

    def make(indices: Sequence[int]) -> Batch:
        cases = [plan.cases[i] for i in indices]
        samples = [
            draw_sample(
                case,
                plan.study.grid.patch,
                plan.study.train,
                _generator(plan.seed, f"draw/{i}", epoch),
            )
            for i, case in zip(indices, cases, strict=True)
        ]
        return collate(samples, cases)

    if plan.machine.device.type == "cpu":
        yield from map(make, batches)
        return
    with ThreadPoolExecutor(max_workers=BATCHES_AHEAD) as pool:
        pending = deque(pool.submit(make, b) for b in batches[:BATCHES_AHEAD])
        following = iter(batches[BATCHES_AHEAD:])
        while pending:
            batch = pending.popleft().result()
            if (indices := next(following, None)) is not None:
                pending.append(pool.submit(make, indices))
            yield _to_device(batch, plan.machine.device)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        image=batch.image.to(device),
        present=batch.present.to(device),
        mask=batch.mask.to(device),
        has_mask=batch.has_mask.to(device),
        labels=batch.labels.to(device),
        known=batch.known.to(device),
    )


def _seed_of(seed: int, purpose: str, epoch: int) -> int:
    """64 bits from the names, so that each purpose and epoch has its own random numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def _generator(seed: int, purpose: str, epoch: int) -> np.random.Generator:
    return np.random.default_rng(_seed_of(seed, purpose, epoch))
