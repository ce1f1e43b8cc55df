"""What a marker's head reads of the features of a level: one vector for the whole image.

The global maximum of each channel is that of van der Voort et al. 2023. Pooling inside the
predicted mask adds what radiomics reads: mean, largest value and spread in the tumour, and its
volume. The mask is soft, and no gradient goes through it: segmentation is trained by its own loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from gliofed.models.presets import Triple
from gliofed.study import Pooling

SMALLEST_VOLUME: Final = 1e-3
"""Voxels of the mask below which mean and spread approach 0: without a tumour they are 0."""
SMALLEST_VARIANCE: Final = 1e-4
"""Added to the variance: it bounds the gradient of the spread where a channel is constant."""
VOLUME_SCALE: Final = 0.1
"""Factor of the logarithm of the volume, which is then about 1 as the other features are."""


def pooled_features(channels: int, pooling: Pooling) -> int:
    """Number of features of levels with so many channels together."""
    return channels if pooling == "max" else 4 * channels + 1


def global_max(x: Tensor) -> Tensor:
    """(B, channels, X, Y, Z) to (B, channels).

    On a CPU the gradient goes to one voxel of the maximum, which takes a third of the time of
    `amax`; that shares it out among voxels that are equal to the bit.
    """
    trained = x.requires_grad and not torch.compiler.is_compiling()
    if trained and x.device.type == "cpu" and x.is_contiguous():
        return functional.adaptive_max_pool3d(x, 1).flatten(1)
    return x.amax(dim=(2, 3, 4))


def pool_in_mask(levels: Sequence[Tensor], mask: Tensor, strides: Sequence[Triple]) -> list[Tensor]:
    """Logarithm of the mask's volume (B, 1), then mean, largest value and spread of each level's
    channels in the mask, each (B, channels).

    levels: (B, channels, ...), from the finest down and up again. mask: logits (B, 1, X, Y, Z).
    strides: of each level on the way down, from the one above it; the first from the mask.
    """
    weight = mask.detach().float().sigmoid()
    pooled = [VOLUME_SCALE * torch.log1p(weight.sum(dim=(1, 2, 3, 4)))[:, None]]
    weights = []
    for stride in strides:
        weight = _coarser(weight, stride)
        weights.append(weight)
    for level, share in zip(levels, [*weights, *weights[-2::-1]], strict=True):
        pooled += _statistics(level.float(), share)
    return pooled


def _coarser(weight: Tensor, stride: Triple) -> Tensor:
    """Mean over blocks of `stride` voxels; sizes are rounded up, beyond the image the mask is 0."""
    if stride == (1, 1, 1):
        return weight
    x, y, z = (s - 1 for s in stride)
    return functional.avg_pool3d(functional.pad(weight, (0, z, 0, y, 0, x)), stride, stride)


def _statistics(level: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean, largest weighted value and weighted spread of each channel."""
    values, share = level.flatten(2), weight.flatten(2).transpose(1, 2)
    total = share.sum(dim=1) + SMALLEST_VOLUME
    mean = torch.bmm(values, share)[..., 0] / total
    variance = torch.bmm((values - mean[..., None]).square(), share)[..., 0] / total
    spread = (variance + SMALLEST_VARIANCE).sqrt()
    return mean, global_max(level * weight), spread
