"""Arithmetic on whole models a block at a time: a block stays in a core's cache, and no second
model is held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

_VALUES: Final = 2**18
"""Of a block. Not fewer: between two blocks, threads that carry messages may want their turn."""


def blocks(tensor: Tensor) -> Sequence[Tensor]:
    """Its values in order; of a contiguous tensor views: what changes them changes it."""
    return torch.split(tensor.detach().reshape(-1), _VALUES)


def norm(model: Mapping[str, Tensor]) -> float:
    """The L2 norm of all tensors together, summed in float64."""
    room = torch.empty(_VALUES, dtype=torch.float64)
    found = 0.0
    for tensor in model.values():
        for block in blocks(tensor):
            wide = room[: block.numel()].copy_(block)
            found += float(wide.dot(wide))
    return math.sqrt(found)


def change_norm(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> float:
    """The L2 norm of `new` minus `old`, summed in float64; both have the same names and shapes."""
    room = torch.empty(_VALUES, dtype=torch.float64)
    found = 0.0
    for name, tensor in new.items():
        for block, was in zip(blocks(tensor), blocks(old[name]), strict=True):
            wide = room[: block.numel()].copy_(block).sub_(was)
            found += float(wide.dot(wide))
    return math.sqrt(found)
