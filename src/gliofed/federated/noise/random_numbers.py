"""Random numbers that neither the server nor another site can compute.

They come from the operating system's generator, and from no seed: a seed of the study is known to
everyone, and noise that can be computed can be subtracted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Entropy = Callable[[int], bytes]
"""From a number to that many unpredictable bytes."""


def uniform(count: int, entropy: Entropy = os.urandom) -> NDArray[np.float64]:
    """Independent values, uniform in [0, 1), each of 53 random bits."""
    bits = np.frombuffer(entropy(8 * count), np.uint64) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


def drawn(count: int, rate: float, entropy: Entropy = os.urandom) -> NDArray[np.intp]:
    """The numbers below `count` that are drawn, each by itself with the probability `rate`."""
    return np.flatnonzero(uniform(count, entropy) < rate)


def gaussian(like: Tensor, deviation: float, entropy: Entropy = os.urandom) -> Tensor:
    """Independent Gaussian values of mean 0 in the shape of `like`, float64 on the CPU.

    Box and Muller 1958 in float64. The noisy sum is rounded to float32 afterwards, so that the gaps
    between the values that float64 can have are not seen in it (Mironov 2012, CCS).
    """
    pairs = (like.numel() + 1) // 2
    first, second = uniform(2 * pairs, entropy).reshape(2, pairs)
    radius = deviation * np.sqrt(-2 * np.log1p(-first))  # 1 - first is never 0
    angle = 2 * math.pi * second
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return torch.from_numpy(values[: like.numel()]).reshape(like.shape)
