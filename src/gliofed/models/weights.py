"""The files of weights in a model folder, one for each network of an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gliofed.errors import ModelError, StudyError
from gliofed.models.network import build_net
from gliofed.study import NetworkConfig

WEIGHTS: Final = "weights.safetensors"
"""The file of the only network, or of the first of an ensemble."""


def weights_file(member: int) -> str:
    """The file of the weights of one network; members count from 0."""
    return f"weights-{member + 1}.safetensors" if member else WEIGHTS


def weights_files(names: Collection[str]) -> tuple[str, ...]:
    """Those of `names` that are weights: of consecutive members from the first."""
    every = itertools.takewhile(names.__contains__, map(weights_file, itertools.count()))
    return tuple(every)


def pack_weights(weights: Mapping[str, Tensor]) -> bytes:
    """The bytes of a file of weights; equal weights give equal bytes."""
    tensors = {k: v.detach().to("cpu").contiguous() for k, v in sorted(weights.items())}
    data: bytes = safetensors.torch.save(tensors)
    return data


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights on the CPU; bfloat16 is read as float32. Raises ModelError."""
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path}: is not a file of weights ({error}); fetch the model again"
        ) from None
    return {
        name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        for name, tensor in tensors.items()
    }


def check_weights(weights: Mapping[str, Tensor], config: NetworkConfig, path: Path) -> None:
    """Check that the weights fit the network and are finite.

    path: their file. Raises ModelError.
    """
    try:
        expected = build_net(config, seed=0).state_dict()
    except StudyError as error:
        raise ModelError(f"{path}: {error}") from None
    unknown, missing = sorted(set(weights) - set(expected)), sorted(set(expected) - set(weights))
    if unknown or missing:
        what = [f"{len(missing)} parameters are missing ({missing[0]} ...)"] if missing else []
        what += [f"{len(unknown)} are not of the network ({unknown[0]} ...)"] if unknown else []
        raise ModelError(f"{path}: {'; '.join(what)}")
    for name, tensor in weights.items():
        parameter = expected[name]
        if tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise ModelError(
                f"{path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected "
                f"{parameter.dtype} "
                f"{tuple(parameter.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{path}: {name} has a value that is not finite")
