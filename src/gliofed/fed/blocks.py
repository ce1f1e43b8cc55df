"""Arithmetic on whole models a block at a time: a block stays in a core's cache, and no second
model is held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

_VALUES: Final = 2**16
"""Of a block."""


def blocks(tensor: Tensor) -> Sequence[Tensor]:
    """Its values in order; of a contiguous tensor views: what changes them changes it."""
    return torch.split(tensor.detach().reshape(-1), _VALUES)


def norm(model: Mapping[str, Tensor]) -> float:
    """The L2 norm of all tensors together, summed in float64."""
    return math.sqrt(sum(_squares(block.double()) for t in model.values() for block in blocks(t)))


def change_norm(new: Mapping[str, Tensor], old: Mapping[str, Tensor]) -> float:
    """The L2 norm of `new` minus `old`, summed in float64; both have the same names and shapes."""
    return math.sqrt(
        sum(
            _squares(a.double() - b.double())
            for name, tensor in new.items()
            for a, b in zip(blocks(tensor), blocks(old[name]), strict=True)
        )
    )


def _squares(block: Tensor) -> float:
    return float(block.dot(block))
