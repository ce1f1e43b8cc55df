"""Tensors of a model and those that belong to its parameters, in one file by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gliofed.types import TensorsByKind


def tensor_name(parameter: str, kind: str) -> str:
    """The name of a tensor of a kind in a file; no parameter has a colon in its name."""
    return f"{parameter}:{kind}"


def join_tensors(model: Mapping[str, Tensor], by_kind: TensorsByKind) -> dict[str, Tensor]:
    """All tensors of one file by name, those of the model first."""
    tensors = dict(model)
    for kind, own in by_kind.items():
        tensors |= {tensor_name(name, kind): t for name, t in own.items()}
    return tensors


def split_tensors(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Model and other kinds of a file that `join_tensors` named."""
    model: dict[str, Tensor] = {}
    by_kind: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parameter, _, kind = name.rpartition(":")
        if parameter:
            by_kind.setdefault(kind, {})[parameter] = tensor
        else:
            model[name] = tensor
    return model, by_kind
