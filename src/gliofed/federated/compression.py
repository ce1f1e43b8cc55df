"""Smaller gradients: bfloat16, 8-bit integers with one scale a channel, or multiples of one unit
that secret sums add as 32-bit integers; with error feedback.

What rounding takes away at one round is added at the site's next one (Seide et al. 2014,
Interspeech; Karimireddy et al. 2019, ICML), so that it is delayed and not lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import torch
from torch import Tensor

from gliofed.federated.named_tensors import tensor_name
from gliofed.federated.wire import TensorFile
from gliofed.types import TensorsByKind

Compression = Literal["none", "bfloat16", "int8", "int32"]
SCALE: Final = "scale"
RESIDUAL: Final = "residual"
_LARGEST: Final = 127


def compress(
    gradient: Mapping[str, Tensor],
    how: Compression,
    residual: Mapping[str, Tensor],
    unit: float = 1.0,
) -> tuple[dict[str, Tensor], TensorsByKind, dict[str, Tensor]]:
    """Compressed tensors, what belongs to them by kind, and the new residual.

    residual: of the site's round before, by parameter; empty before the first. It stays as it is
    where the gradient is not finite: the gate refuses that one. unit: of "int32", a power of two.
    The tensors are then float32 multiples of it.
    """
    if how == "none":
        return dict(gradient), {}, {}
    wanted = {
        k: g.float() + residual[k] if k in residual else g.float() for k, g in gradient.items()
    }
    scales: dict[str, Tensor] = {}
    if how == "int32":
        packed = {k: (g / unit).round() * unit for k, g in wanted.items()}
    elif how == "bfloat16":
        packed = {k: g.to(torch.bfloat16) for k, g in wanted.items()}
    else:
        scales = {k: _scale(g) for k, g in wanted.items()}
        packed = {
            k: (g / _spread(scales[k], g)).nan_to_num(0.0).round().to(torch.int8)
            for k, g in wanted.items()
        }
    extra = {SCALE: scales} if scales else {}
    sent = expand(packed, extra)
    if not all(bool(g.isfinite().all()) for g in wanted.values()):
        return packed, extra, dict(residual)
    return packed, extra, {k: g - sent[k] for k, g in wanted.items()}


def expand(packed: Mapping[str, Tensor], extra: TensorsByKind) -> dict[str, Tensor]:
    """The float32 tensors that `compress` sent."""
    scales = extra.get(SCALE, {})
    return {
        k: t.float() * _spread(scales[k], t) if k in scales else t.float()
        for k, t in packed.items()
    }


def expanded_from(file: TensorFile, name: str) -> Tensor:
    """One tensor of an update's file, uncompressed; mapped where it was not compressed.

    Raises KeyError where the file has no such tensor.
    """
    tensor, scale = file.get(name), file.get(tensor_name(name, SCALE))
    if tensor is None:
        raise KeyError(name)
    return tensor.float() if scale is None else tensor.float() * _spread(scale, tensor)


def expected(
    model: Mapping[str, Tensor], how: Compression
) -> tuple[torch.dtype | None, TensorsByKind]:
    """Dtype of the compressed tensors (None: the model's), and examples of what belongs to them."""
    if how == "bfloat16":
        return torch.bfloat16, {}
    if how == "int8":
        return torch.int8, {SCALE: {k: torch.empty(_channels(t)) for k, t in model.items()}}
    return None, {}


def _channels(tensor: Tensor) -> int:
    """Scales of a tensor: one an output channel, one in all for a bias."""
    return tensor.shape[0] if tensor.dim() > 1 else 1


def _scale(tensor: Tensor) -> Tensor:
    return tensor.reshape(_channels(tensor), -1).abs().amax(1) / _LARGEST


def _spread(scale: Tensor, tensor: Tensor) -> Tensor:
    """The scales in a shape that multiplies the tensor."""
    return scale.reshape(-1, *[1] * (tensor.dim() - 1)) if tensor.dim() > 1 else scale
