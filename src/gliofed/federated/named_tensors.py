"""Tensors of a model and those that belong to its parameters, in one file by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliofed.errors import UpdateError
from gliofed.federated.schema import shown
from gliofed.types import TensorsByKind


@dataclass(frozen=True)
class TensorForm:
    """A tensor without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


Layout = Mapping[str, TensorForm]
"""The tensors of a message by name, without values."""


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout of tensors."""
    return {name: TensorForm(t.dtype, tuple(t.shape)) for name, t in tensors.items()}


def layout_of_kinds(layout: Layout, kinds: Sequence[str]) -> Layout:
    """The layout of tensors of each of `kinds`, one for each tensor of `layout`."""
    return {tensor_name(name, kind): form for kind in kinds for name, form in layout.items()}


def require_layout(sent: Layout, expected: Layout) -> None:
    """Raise UpdateError for a tensor that is not expected, is missing, or has another form."""
    extra = [name for name in sent if name not in expected]
    if extra:
        raise UpdateError(f"it has tensors the model lacks: {shown(sorted(extra))}")
    missing = [name for name in expected if name not in sent]
    if missing:
        raise UpdateError(f"it lacks tensors of the model: {shown(sorted(missing))}")
    for name, form in sent.items():
        if form != expected[name]:
            raise UpdateError(f"{name} is {form}, expected {expected[name]}")


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
