"""The training loop, used by pooled, single-site and federated training alike."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import torch

from gliofed.data.store import PreparedCase
from gliofed.models.network import MultiTaskNet
from gliofed.models.optimiser import clipped_step, learning_rate
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study
from gliofed.training.loss import LossScale, total_loss
from gliofed.training.order import generator, site_batches
from gliofed.training.samples import collate, draw_sample
from gliofed.types import Batch, Stat

BATCHES_AHEAD = 8
"""Number of batches that threads prepare in advance for an accelerator."""
Correction = Callable[[], None]
"""Changes the gradients of the network's parameters before a step."""


@dataclass(frozen=True)
class TrainingPlan:
    """The data and settings of a training, besides network and optimiser.

    sites: site to its training cases. task_weights: "mask" and marker ids to the loss weight of one
    labelled row, 0 where a task is left out. class_weights: marker id to one loss weight a class.
    seed: determines order, patches, augmentation and dropout. batches: of one pass over all cases.
    steps: of the complete training, over which the learning rate decays. least: fewest cases of a
    site in a batch that has any of it.
    """

    study: Study
    sites: Mapping[str, Sequence[PreparedCase]]
    task_weights: Mapping[str, float]
    class_weights: Mapping[str, tuple[float, ...]]
    seed: int
    batches: int
    steps: int
    machine: Device
    least: int = 1


def fit(
    net: MultiTaskNet,
    optimiser: torch.optim.Optimizer,
    plan: TrainingPlan,
    steps: range,
    progress: Progress = NO_PROGRESS,
    correct: Correction | None = None,
) -> Mapping[str, Stat]:
    """Train `net` for some of the plan's steps; return sums of each task's loss and "dice".

    A step is one batch: number `step % plan.batches` of pass `step // plan.batches`. The same steps
    of the same plan give the same bits on the same CPU and thread count. "gradient_norm" is the sum
    of the norms before clipping. A step whose loss or gradient is not finite changes no weight and
    is counted under "skipped".
    """
    parameters = dict(net.named_parameters())
    train = plan.study.optimisation
    sums: dict[str, Stat] = defaultdict(Stat)
    for step, batch in zip(steps, make_batches(plan, steps), strict=True):
        optimiser.zero_grad(set_to_none=True)
        stats = {} if batch is None else add_gradient(net, plan, batch)
        if stats:  # empty: no case of the batch has a label or a mask
            if correct is not None:
                correct()
            lr = learning_rate(train, step, plan.steps)
            norm = clipped_step(parameters, optimiser, lr, train.clip)
            stats = _unless_skipped(stats, norm)
        for name, stat in stats.items():
            sums[name] += stat
        done = step - steps.start + 1
        progress.update(done, len(steps), f"batch {done} of {len(steps)}")
    return dict(sums)


def _unless_skipped(stats: Mapping[str, Stat], norm: float) -> Mapping[str, Stat]:
    if norm < float("inf"):
        return {**stats, "gradient_norm": Stat(norm, 1)}
    return {"skipped": Stat(1, 1)}


def add_gradient(net: MultiTaskNet, plan: TrainingPlan, batch: Batch) -> Mapping[str, Stat]:
    """Add the gradient of the loss of one batch to those of the parameters.

    Returns each task's loss as a sum over rows, and "dice"; empty where no row has a label or a
    mask.
    """
    net.train()
    with plan.machine.autocast():
        output = net(batch.image, batch.present, batch.dropout)
    loss, stats = total_loss(output, batch, _scale(plan))
    if loss is None:
        return {}
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return stats


def _scale(plan: TrainingPlan) -> LossScale:
    device = plan.machine.device
    classes = {m: torch.tensor(values, device=device) for m, values in plan.class_weights.items()}
    return LossScale(plan.task_weights, classes, plan.study.loss.label_smoothing)


def make_batches(plan: TrainingPlan, steps: range) -> Iterator[Batch | None]:
    """The batch of each step on the machine's device, None where it has no case.

    Threads prepare batches in advance for a GPU.
    """
    orders = lru_cache(maxsize=2)(lambda epoch: _order(plan, epoch))
    if plan.machine.device.type == "cpu":
        yield from (_make_batch(plan, step, orders(step // plan.batches)) for step in steps)
        return
    with ThreadPoolExecutor(max_workers=BATCHES_AHEAD) as pool:
        pending: deque[Future[Batch | None]] = deque()
        for step in steps:
            pending.append(pool.submit(_make_batch, plan, step, orders(step // plan.batches)))
            if len(pending) > BATCHES_AHEAD:
                yield _moved(pending.popleft().result(), plan.machine.device)
        while pending:
            yield _moved(pending.popleft().result(), plan.machine.device)


def cases_of_batch(plan: TrainingPlan, step: int) -> int:
    """How many cases the batch of a step has."""
    epoch, number = divmod(step, plan.batches)
    return sum(len(own[number]) for own in _order(plan, epoch).values())


Order = Mapping[str, Sequence[Sequence[int]]]
"""Site to the numbers of its cases in each batch of one pass."""
Drawn = Sequence[tuple[str, PreparedCase]]
"""Cases, each with its site."""


def _order(plan: TrainingPlan, epoch: int) -> Order:
    return {
        site: site_batches(
            len(cases), plan.batches, generator(plan.seed, f"order/{site}", epoch), plan.least
        )
        for site, cases in plan.sites.items()
    }


def _make_batch(plan: TrainingPlan, step: int, order: Order) -> Batch | None:
    epoch, number = divmod(step, plan.batches)
    drawn = [(site, plan.sites[site][i]) for site, own in order.items() for i in own[number]]
    return _collated(plan, drawn, epoch) if drawn else None


def batch_of(plan: TrainingPlan, drawn: Drawn, epoch: int) -> Batch:
    """The batch of these cases on the machine's device. epoch: of their random patches."""
    return _to_device(_collated(plan, drawn, epoch), plan.machine.device)


def _collated(plan: TrainingPlan, drawn: Drawn, epoch: int) -> Batch:
    train, patch = plan.study.train, plan.study.grid.patch
    samples = [
        draw_sample(case, patch, train, generator(plan.seed, f"draw/{site}/{case.case.id}", epoch))
        for site, case in drawn
    ]
    return collate(samples, [case for _, case in drawn])


def _moved(batch: Batch | None, device: torch.device) -> Batch | None:
    return None if batch is None else _to_device(batch, device)


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(
        image=batch.image.to(device),
        present=batch.present.to(device),
        mask=batch.mask.to(device),
        has_mask=batch.has_mask.to(device),
        labels=batch.labels.to(device),
        known=batch.known.to(device),
        dropout=batch.dropout,
    )
