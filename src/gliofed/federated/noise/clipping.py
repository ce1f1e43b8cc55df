"""The sum of the gradients of patients, each clipped to one norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import torch
from torch import Tensor

ROUNDING: Final = 1e-6
"""How much a clipped gradient is shorter than the bound, so that rounding does not exceed it."""
RecordT = TypeVar("RecordT")


def clipped_sum(
    parameters: Mapping[str, Tensor],
    records: Iterable[RecordT],
    add_gradient: Callable[[RecordT], object],
    clip: float,
) -> dict[str, Tensor]:
    """The sum over records of their gradients, each scaled to an L2 norm of at most `clip`.

    parameters: by name, of a network. add_gradient: adds the gradient of a record to theirs, which
    are None before. A gradient that is not finite counts as 0. Returns float64 tensors on the
    parameters' device, 0 without a record. One record moves the sum by at most `clip`.
    """
    total = {k: torch.zeros_like(p, dtype=torch.float64) for k, p in parameters.items()}
    for record in records:
        for parameter in parameters.values():
            parameter.grad = None
        add_gradient(record)
        gradient = {k: p.grad for k, p in parameters.items() if p.grad is not None}
        norm = _norm(gradient)
        if not math.isfinite(norm):
            continue
        factor = min(1.0, clip * (1 - ROUNDING) / norm) if norm else 0.0
        for name, own in gradient.items():
            total[name] += factor * own.double()
    return total


def _norm(tensors: Mapping[str, Tensor]) -> float:
    """L2 norm over all tensors; NaN or infinite where a value is."""
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors.values()))
