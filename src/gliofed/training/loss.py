"""The masked multi-task loss.

Missing labels and masks are excluded from the loss: their rows are removed before it is computed,
so their gradient is exactly zero. The head of a task that no row has gets no gradient at all, so
that weight decay and momentum leave it unchanged too.
"""

from __future__ import annotations

from collections.abc import Mapping

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


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over rows of (1 - Dice) + cross-entropy; rows must have an expert mask.

    A patch without tumour has no foreground for Dice; only its cross-entropy counts.
    """
    entropy = (
        functional.binary_cross_entropy_with_logits(logits.float(), mask, reduction="none")
        .flatten(1)
        .mean(1)
    )
    has_tumour = mask.flatten(1).any(1)
    overlap = torch.where(has_tumour, 1 - soft_dice(logits, mask), 0.0)
    return (entropy + overlap).mean()


def marker_loss(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Class-weighted cross-entropy, the mean over rows; rows must have a label.

    Divided by the number of rows, not by their weights, which at batch size 1 would cancel.
    """
    entropy = functional.cross_entropy(
        logits.float(), labels, reduction="none", label_smoothing=smoothing
    )
    return (weights[labels] * entropy).mean()


def total_loss(
    output: NetworkOutput,
    batch: Batch,
    task_weights: Mapping[str, float],
    class_weights: Mapping[str, Tensor],
    smoothing: float = 0.0,
) -> tuple[Tensor | None, Mapping[str, Stat]]:
    """The weighted sum of the losses of all tasks, and each task's unweighted loss as a sum.

    task_weights: "mask" and marker ids; 0 excludes a task. class_weights: marker id to a
    tensor, one weight a class. The loss is None where no row has a label or a mask.
    """
    parts: list[Tensor] = []
    stats: dict[str, Stat] = {}
    rows = batch.has_mask
    if task_weights[MASK_TASK] > 0 and bool(rows.any()):
        logits, mask = output.mask[rows], batch.mask[rows]
        value, count = mask_loss(logits, mask), int(rows.sum())
        parts.append(task_weights[MASK_TASK] * value)
        stats[MASK_TASK] = Stat(float(value.detach()) * count, count)
        stats["dice"] = _dice_stat(logits.detach(), mask)
    for column, marker in enumerate(MARKERS):
        rows = batch.known[:, column]
        if task_weights[marker.id] <= 0 or not bool(rows.any()):
            continue
        labels = batch.labels[rows, column]
        value = marker_loss(
            output.markers[marker.id][rows], labels, class_weights[marker.id], smoothing
        )
        count = int(rows.sum())
        parts.append(task_weights[marker.id] * value)
        stats[marker.id] = Stat(float(value.detach()) * count, count)
    return (torch.stack(parts).sum() if parts else None), stats


def _dice_stat(logits: Tensor, mask: Tensor) -> Stat:
    rows = mask.flatten(1).any(1)
    return Stat(float(soft_dice(logits[rows], mask[rows]).sum()), int(rows.sum()))
