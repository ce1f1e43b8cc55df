"""The masked multi-task loss, as a sum over cases.

Missing labels and masks are excluded from the loss: their rows are removed before it is computed,
so their gradient is exactly zero.

Each task's sum over labelled rows is divided by a number that is the same in every batch: how many
labelled rows a batch has on average. So every labelled case counts the same, however labels are
spread over batches and sites, and the gradient of a joint batch is the sum of its sites' gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK, NetworkOutput
from gliofed.types import Batch, Stat

SMOOTH = 1e-5


def soft_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Foreground soft Dice of each row (Milletari et al. 2016, 3DV). (B, 1, X, Y, Z) to (B,)."""
    p = logits.float().sigmoid().flatten(1)
    t = mask.flatten(1)
    return (2 * (p * t).sum(1) + SMOOTH) / (p.sum(1) + t.sum(1) + SMOOTH)


def mask_losses(logits: Tensor, mask: Tensor) -> Tensor:
    """(1 - Dice) + cross-entropy of each row, (B,); rows must have an expert mask.

    A patient without tumour has no foreground for Dice; only its cross-entropy counts.
    """
    entropy = (
        functional.binary_cross_entropy_with_logits(logits.float(), mask, reduction="none")
        .flatten(1)
        .mean(1)
    )
    has_tumour = mask.flatten(1).any(1)
    return entropy + torch.where(has_tumour, 1 - soft_dice(logits, mask), 0.0)


def marker_losses(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Class-weighted cross-entropy of each row, (B,); rows must have a label."""
    entropy = functional.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=smoothing
    )
    return weights[labels] * entropy


@dataclass(frozen=True)
class LossScale:
    """Factors of the loss.

    tasks: "mask" and marker ids to the weight of one labelled row: the study's weight of the task,
    divided by the labelled rows that a batch has on average. A task of weight 0 is left out.
    classes: marker id to a tensor, one weight a class.
    """

    tasks: Mapping[str, float]
    classes: Mapping[str, Tensor]
    smoothing: float = 0.0


def total_loss(
    output: NetworkOutput, batch: Batch, scale: LossScale
) -> tuple[Tensor | None, Mapping[str, Stat]]:
    """The sum of the losses of all tasks, and each task's unweighted loss as a sum.

    The loss is None where no row has a label or a mask.
    """
    parts: list[Tensor] = []
    stats: dict[str, Stat] = {}
    rows = batch.has_mask
    if scale.tasks[MASK_TASK] > 0 and bool(rows.any()):
        logits, mask = output.mask[rows], batch.mask[rows]
        value = mask_losses(logits, mask).sum()
        parts.append(scale.tasks[MASK_TASK] * value)
        stats[MASK_TASK] = Stat(float(value.detach()), int(rows.sum()))
        stats["dice"] = _dice_stat(logits.detach(), mask.detach())
    for column, marker in enumerate(MARKERS):
        rows = batch.known[:, column]
        if scale.tasks[marker.id] <= 0 or not bool(rows.any()):
            continue
        logits, labels = output.markers[marker.id][rows], batch.labels[rows, column]
        value = marker_losses(logits, labels, scale.classes[marker.id], scale.smoothing).sum()
        parts.append(scale.tasks[marker.id] * value)
        stats[marker.id] = Stat(float(value.detach()), int(rows.sum()))
    return (torch.stack(parts).sum() if parts else None), stats


def _dice_stat(logits: Tensor, mask: Tensor) -> Stat:
    rows = mask.flatten(1).any(1)
    return Stat(float(soft_dice(logits[rows], mask[rows]).sum()), int(rows.sum()))
