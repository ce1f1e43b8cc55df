"""Arithmetic on whole models, one block of values at a time, without a second model in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

_VALUES: Final = 2**18
"""Values of a block, few enough for a core's cache."""


def blocks(tensor: Tensor) -> Sequence[Tensor]:
    """Its values in order; views where the tensor is contiguous, so that writing changes it."""
    return torch.split(tensor.detach().reshape(-1), _VALUES)


def norm(model: Mapping[str, Tensor]) -> float:
    """The L2 norm of all tensors together, summed in float64."""
    buffer = torch.empty(_VALUES, dtype=torch.float64)
    squares = 0.0
    for tensor in model.values():
        for block in blocks(tensor):
            wide = buffer[: block.numel()].copy_(block)
            squares += float(wide.dot(wide))
    return math.sqrt(squares)


def change_norm(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> float:
    """The L2 norm of `new` minus `old`, summed in float64; both have the same names and shapes."""
    buffer = torch.empty(_VALUES, dtype=torch.float64)
    squares = 0.0
    for name, tensor in new.items():
        for block, before in zip(blocks(tensor), blocks(old[name]), strict=True):
            wide = buffer[: block.numel()].copy_(block).sub_(before)
            squares += float(wide.dot(wide))
    return math.sqrt(squares)
