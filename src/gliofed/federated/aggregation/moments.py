"""Moments of AdamW that all sites share, and their form in one file with the weights.

A site that scales gradients by moments of its own takes full steps towards its own kind of
patient, however weak that pull is. With the moments of all sites its steps are those of pooled
training (local AMSGrad with one second moment: Chen et al. 2020, FODS; the server's optimiser
applied at the site: Karimireddy et al. 2021, Mime, NeurIPS 34).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from gliofed.types import OptimiserMoments

KINDS: Final = ("exp_avg", "exp_avg_sq")


def zero_moments(weights: Mapping[str, Tensor]) -> OptimiserMoments:
    """Moments of 0 for every parameter, as before the first step."""
    return OptimiserMoments(
        {name: torch.zeros_like(t) for name, t in weights.items()},
        {name: torch.zeros_like(t) for name, t in weights.items()},
    )


def tensor_name(parameter: str, kind: str) -> str:
    """The name of a moment in a file; no parameter has a colon in its name."""
    return f"{parameter}:{kind}"


def join_tensors(
    weights: Mapping[str, Tensor], moments: OptimiserMoments | None
) -> dict[str, Tensor]:
    """All tensors of one file by name, the weights first."""
    tensors = dict(weights)
    for kind, own in (moments.by_kind if moments else {}).items():
        tensors |= {tensor_name(name, kind): t for name, t in own.items()}
    return tensors


def split_tensors(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], OptimiserMoments | None]:
    """Weights and moments of a file that `join_tensors` named; None where it has no moment."""
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    for name, tensor in tensors.items():
        parameter, _, kind = name.rpartition(":")
        if parameter and kind in KINDS:
            moments[kind][parameter] = tensor
        else:
            weights[name] = tensor
    if not any(moments.values()):
        return weights, None
    return weights, OptimiserMoments(**moments)
