"""Numbers as integers modulo 2^64, in which sums are exact in any order.

A value is a multiple of 2^-40, so encoding changes it by at most 2^-41, and a sum over n sites by
at most n x 2^-41. Sums of absolute value below `gliofed.federation_config.LARGEST_SUM` leave half
of the range to spare; a study is refused if `federation.max_gradient` times its sites is larger.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks

FRACTION_BITS: Final = 40
SCALE: Final = 2.0**FRACTION_BITS


def encode(values: Tensor) -> Tensor:
    """int64 of the same shape. Values are finite, and their sum below `LARGEST_SUM`."""
    encoded = torch.empty(values.shape, dtype=torch.int64)
    for own, block in zip(blocks(encoded), blocks(values.to("cpu")), strict=True):
        own.copy_(block.to(torch.float64).mul_(SCALE).round_())
    return encoded


def decode(encoded: Tensor) -> Tensor:
    """float64 of the same shape."""
    return encoded.to(torch.float64).div_(SCALE)
