"""Gradient inversion: images are searched whose gradient points where a sent one does.

Geiping et al. 2020, Inverting gradients: how easy is it to break privacy in federated learning?
(NeurIPS 33): cosine distance between the gradients of all parameters plus total variation, Adam on
the sign of the image's gradient. Changed for volumes: an image is the sum of grids from coarse to
fine, since the network has fewer values at its first level than a volume has, and steps become
smaller along a half cosine (Loshchilov & Hutter 2017, SGDR, ICLR).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR

DifferentiableGradient = Callable[[Tensor], Sequence[Tensor]]
"""From images to the gradient of every parameter."""
COARSEST: Final = 4
"""Most voxels along a side of the coarsest grid."""


@dataclass(frozen=True)
class InversionSettings:
    """iterations, rate: of Adam. smoothness: factor of the total variation. These were the best of
    some that were tried on crops of one patient's tumour and a network that was not trained."""

    iterations: int = 300
    rate: float = 0.1
    smoothness: float = 0.2


def invert(
    observed: Sequence[Tensor],
    gradient_of: DifferentiableGradient,
    shape: Sequence[int],
    settings: InversionSettings,
) -> Tensor:
    """The images found, (B, C, X, Y, Z) = `shape`. observed: the sent gradient, one tensor a
    parameter. The search begins with 0."""
    grids = [torch.zeros(*shape[:2], *sides, requires_grad=True) for sides in scales(shape[2:])]
    optimiser = torch.optim.Adam(grids, settings.rate, eps=1e-20)
    schedule = CosineAnnealingLR(optimiser, settings.iterations)
    for _ in range(settings.iterations):
        images = summed(grids)
        distance = cosine_distance(gradient_of(images), observed)
        loss = distance + settings.smoothness * total_variation(images)
        for grid, slope in zip(grids, torch.autograd.grad(loss, grids), strict=True):
            grid.grad = slope.sign()
        optimiser.step()
        schedule.step()
    return summed(grids).detach()


def scales(sides: Sequence[int]) -> list[tuple[int, ...]]:
    """The sides of the grids, coarsest first: each has half the sides of the next, rounded up.

    >>> scales((16, 16, 6))
    [(4, 4, 2), (8, 8, 3), (16, 16, 6)]
    """
    found = [tuple(sides)]
    while max(found[0]) > COARSEST:
        found.insert(0, tuple(-(-n // 2) for n in found[0]))
    return found


def summed(grids: Sequence[Tensor]) -> Tensor:
    """The sum of grids (B, C, ...), each enlarged linearly to the size of the last."""
    size = grids[-1].shape[2:]
    return torch.stack([functional.interpolate(g, size=size, mode="trilinear") for g in grids]).sum(
        0
    )


def cosine_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """1 minus the cosine of the angle between two gradients of all parameters; 1 if either is 0."""
    product = torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
    lengths = [torch.stack([t.square().sum() for t in g]).sum() for g in (one, other)]
    return 1 - product / (lengths[0] * lengths[1] + 1e-30).sqrt()


def total_variation(images: Tensor) -> Tensor:
    """The mean absolute difference of neighbours along each axis of (B, C, X, Y, Z), summed over
    axes; sides of 1 have none."""
    parts = [images.diff(dim=d).abs().mean() for d in (2, 3, 4) if images.shape[d] > 1]
    return torch.stack(parts).sum() if parts else images.new_zeros(())


def with_noise(gradient: Sequence[Tensor], share: float, seed: int) -> list[Tensor]:
    """The gradient with normal noise on every number, its standard deviation `share` times the
    gradient's norm, as in the Gaussian mechanism with a clipping bound of that norm."""
    norm = torch.stack([t.square().sum() for t in gradient]).sum().sqrt()
    drawn = torch.Generator().manual_seed(seed)
    return [t + share * norm.cpu() * torch.randn(t.shape, generator=drawn) for t in gradient]
