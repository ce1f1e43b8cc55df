"""AdamW's moments, beside the weights in one mapping, where a study has its sites share them.

A site that scales gradients by moments of its own takes full steps towards its own kind of
patient however weak that pull is. With the moments of all sites it takes them as a step of pooled
training would (local AMSGrad with one second moment: Chen et al. 2020, FODS; the server's
optimiser applied at the site: Karimireddy et al. 2021, Mime, NeurIPS 34).

A moment is named `<parameter>:<moment>`, which no parameter is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

SQUARES: Final = "exp_avg_sq"
KINDS: Final = ("exp_avg", SQUARES)


def is_moment(name: str) -> bool:
    """Whether a tensor of this name is a moment."""
    return ":" in name


def weights_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model alone."""
    return {name: t for name, t in tensors.items() if not is_moment(name)}


def moments_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moments alone; empty where sites keep their own."""
    return {name: t for name, t in tensors.items() if is_moment(name)}


def with_moments(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model with moments of 0, as before the first step."""
    zeros = {f"{name}:{kind}": torch.zeros_like(t) for name, t in weights.items() for kind in KINDS}
    return {**weights, **zeros}
