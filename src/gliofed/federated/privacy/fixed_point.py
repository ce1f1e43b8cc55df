"""Numbers as integers modulo 2^64 or 2^32, in which sums are exact in any order.

With 64 bits a value is a multiple of 2^-40: encoding changes it by at most 2^-41, and a sum over n
sites by at most n x 2^-41. With 32 bits (`federation.compress` = "int32") the unit follows from the
largest sum that the study allows, and what rounding takes away is added at the site's next round
(`gliofed.federated.compression`). Half of the range is to spare in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gliofed.federated.aggregation.blocks import blocks
from gliofed.federated.noise.shares import largest_gradient
from gliofed.study import Study


@dataclass(frozen=True)
class FixedPoint:
    """A value is a multiple of 2^-`fraction_bits`. dtype: int64 or int32."""

    dtype: torch.dtype
    fraction_bits: int

    @property
    def unit(self) -> float:
        """The distance of two values; a power of two."""
        return 2.0**-self.fraction_bits

    def encode(self, values: Tensor) -> Tensor:
        """Integers of the same shape. Values are finite, and their sum is in range."""
        encoded = torch.empty(values.shape, dtype=self.dtype)
        for own, block in zip(blocks(encoded), blocks(values.to("cpu")), strict=True):
            own.copy_(block.to(torch.float64).div_(self.unit).round_())
        return encoded

    def decode(self, encoded: Tensor) -> Tensor:
        """float64 of the same shape."""
        return encoded.to(torch.float64).mul_(self.unit)


WIDE: Final = FixedPoint(torch.int64, 40)
"""For sums below `gliofed.federation_config.LARGEST_SUM`."""


def fixed_point_of(study: Study, values: int) -> FixedPoint:
    """The integers of a study's gradients of `values` numbers.

    Raises StudyError as `largest_gradient`.
    """
    if study.federation.compress != "int32":
        return WIDE
    largest = len(study.data.train) * largest_gradient(study, values)
    return FixedPoint(torch.int32, 30 - math.ceil(math.log2(largest)))
