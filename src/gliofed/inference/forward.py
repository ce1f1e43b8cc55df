"""One forward pass over the whole brain box, and how the answer swings about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gliofed.data.store import PreparedCase
from gliofed.models.network import MultiTaskNet
from gliofed.runtime.device import Device
from gliofed.types import Prediction

DROPOUT_SAMPLES: Final = 200
"""Of the heads with dropout: their 95 % range is then of ten draws at each end."""


@dataclass(frozen=True)
class PredictionUncertainty:
    """How one network's answer swings.

    maps: tumour probability (X, Y, Z) of each pass, one as scanned and, where asked, one mirrored.
    markers: by id, (draws, classes), probabilities with dropout at work in the heads (Monte Carlo
    dropout, Gal & Ghahramani 2016, ICML), the draws shared among the passes.
    """

    maps: tuple[NDArray[np.float32], ...]
    markers: Mapping[str, NDArray[np.float64]]


def predict(net: MultiTaskNet, prepared: PreparedCase, machine: Device, mirror: bool) -> Prediction:
    """The network's answer for one case, on the prepared grid.

    mirror: average with the answer for the left-right mirrored scan.
    """
    passes = _passes(net, prepared, machine, mirror)
    return _mean(passes, _heads(net, passes, machine), prepared)


def predict_with_uncertainty(
    net: MultiTaskNet,
    prepared: PreparedCase,
    machine: Device,
    mirror: bool,
    draws: int = DROPOUT_SAMPLES,
) -> tuple[Prediction, PredictionUncertainty]:
    """As `predict`, and how the answer swings; equal inputs give equal draws."""
    passes = _passes(net, prepared, machine, mirror)
    sure = _heads(net, passes, machine)
    with _dropping(net), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        many = [p.features.expand(-(-draws // len(passes)), -1) for p in passes]
        drawn = _answers(net, torch.cat(many)[:draws], machine)
    doubt = PredictionUncertainty(
        tuple(p.map.cpu().numpy() for p in passes), {k: v.cpu().numpy() for k, v in drawn.items()}
    )
    return _mean(passes, sure, prepared), doubt


@dataclass(frozen=True)
class _ForwardPass:
    """map: (X, Y, Z) tumour probability, turned back. features: (1, features)."""

    map: Tensor
    features: Tensor


def _passes(
    net: MultiTaskNet, prepared: PreparedCase, machine: Device, mirror: bool
) -> tuple[_ForwardPass, ...]:
    net.eval()
    image = torch.from_numpy(prepared.image.astype(np.float32))[None].to(machine.device)
    present = torch.tensor([prepared.present], dtype=torch.float32, device=machine.device)
    found = [_pass(net, image, present, machine)]
    if mirror:
        turned = _pass(net, image.flip(2), present, machine)
        found.append(_ForwardPass(turned.map.flip(0), turned.features))
    return tuple(found)


def _pass(net: MultiTaskNet, image: Tensor, present: Tensor, machine: Device) -> _ForwardPass:
    with torch.inference_mode(), machine.autocast():
        mask, features = net.trunk(image, present)
    return _ForwardPass(mask.float().sigmoid()[0, 0], features)


def _heads(
    net: MultiTaskNet, passes: tuple[_ForwardPass, ...], machine: Device
) -> Mapping[str, Tensor]:
    """(passes, classes) of each marker; each pass for itself, as `MultiTaskNet.forward` does."""
    each = [_answers(net, p.features, machine) for p in passes]
    return {k: torch.cat([a[k] for a in each]) for k in each[0]}


def _answers(net: MultiTaskNet, features: Tensor, machine: Device) -> dict[str, Tensor]:
    """(n, features) to float64 class probabilities (n, classes) of each marker."""
    with torch.inference_mode(), machine.autocast():
        logits = {name: head(features) for name, head in net.heads.items()}
    return {k: functional.softmax(v.double(), 1) for k, v in logits.items()}


def _mean(
    passes: tuple[_ForwardPass, ...], markers: Mapping[str, Tensor], prepared: PreparedCase
) -> Prediction:
    total = passes[0].map
    for other in passes[1:]:
        total = total + other.map
    return Prediction(
        probability=(total / len(passes)).cpu().numpy(),
        affine=prepared.affine,
        markers={k: tuple((v.sum(0) / len(passes)).tolist()) for k, v in markers.items()},
    )


@contextmanager
def _dropping(net: MultiTaskNet) -> Iterator[None]:
    """Dropout at work in the heads, and nowhere else."""
    layers = [m for m in net.heads.modules() if isinstance(m, nn.Dropout)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
