"""Gradient inversion: images are searched whose gradient points where a sent one does.

Geiping et al. 2020, Inverting gradients: how easy is it to break privacy in federated learning?
(NeurIPS 33): cosine distance between the gradients of all parameters plus total variation, Adam on
the sign of the image's gradient, step sizes reduced at 3/8, 5/8 and 7/8 of the search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

DifferentiableGradient = Callable[..., Sequence[Tensor]]
"""From the unknown tensors, images first, to the gradient of every parameter."""


@dataclass(frozen=True)
class InversionSettings:
    """iterations, rate: of Adam. smoothness: factor of the total variation. low, high: range of the
    image's values."""

    iterations: int = 300
    rate: float = 0.1
    smoothness: float = 1e-3
    low: float = -5.0
    high: float = 10.0


def invert(
    observed: Sequence[Tensor],
    gradient_of: DifferentiableGradient,
    start: Sequence[Tensor],
    settings: InversionSettings,
) -> Tensor:
    """The images found, of the shape of `start[0]`.

    observed: the sent gradient, one tensor a parameter. start: the first guess of every unknown
    tensor, the images first; the others are free real numbers, as logits of a mask.
    """
    unknown = [t.detach().clone().requires_grad_() for t in start]
    optimiser = torch.optim.Adam(unknown, settings.rate)
    steps = [settings.iterations * k // 8 for k in (3, 5, 7)]
    schedule = MultiStepLR(optimiser, steps, gamma=0.1)
    for _ in range(settings.iterations):
        distance = cosine_distance(gradient_of(*unknown), observed)
        loss = distance + settings.smoothness * total_variation(unknown[0])
        found = torch.autograd.grad(loss, unknown)
        for tensor, slope in zip(unknown, found, strict=True):
            tensor.grad = slope.sign()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            unknown[0].clamp_(settings.low, settings.high)
    return unknown[0].detach()


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
