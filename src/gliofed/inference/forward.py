"""One forward pass over the whole brain box, and the uncertainty of its result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gliofed.data.store import PreparedCase
from gliofed.models.blocks import RowDropout
from gliofed.models.ensemble import Network, members_of
from gliofed.models.network import MultiTaskNet, untrained_sequences
from gliofed.runtime.device import Device
from gliofed.types import SEQUENCES, Prediction
from gliofed.types import Sequence as Scan

DROPOUT_SAMPLES: Final = 200
"""Number of dropout samples: five lie outside each end of the 95 % range."""


@dataclass(frozen=True)
class DeviceNetwork:
    """A network, or an ensemble, on its device."""

    net: Network
    machine: Device


@dataclass(frozen=True)
class PredictionUncertainty:
    """The variability of a prediction for one case.

    maps: tumour probability (X, Y, Z) of each pass: of each network as scanned and, if wanted,
    mirrored.
    markers: by id, (samples, classes), probabilities with dropout active in the heads (Monte Carlo
    dropout, Gal & Ghahramani 2016, ICML), the samples shared among the passes.
    """

    maps: tuple[NDArray[np.float32], ...]
    markers: Mapping[str, NDArray[np.float64]]


def predict(net: Network, prepared: PreparedCase, machine: Device, mirror: bool) -> Prediction:
    """The prediction for one case, on the prepared grid: the mean over the networks of an ensemble.

    Each network gets its `used_case`.

    mirror: average with the prediction for the left-right mirrored scan.
    """
    passes = _passes(net, prepared, machine, mirror)
    return _mean(passes, _heads(passes, machine), prepared)


def predict_with_uncertainty(
    net: Network,
    prepared: PreparedCase,
    machine: Device,
    mirror: bool,
    samples: int = DROPOUT_SAMPLES,
) -> tuple[Prediction, PredictionUncertainty]:
    """As `predict`, with its uncertainty; equal inputs give equal samples."""
    passes = _passes(net, prepared, machine, mirror)
    markers = _heads(passes, machine)
    sampled = _dropout_samples(passes, machine, samples)
    uncertainty = PredictionUncertainty(tuple(p.map.cpu().numpy() for p in passes), sampled)
    return _mean(passes, markers, prepared), uncertainty


def _dropout_samples(
    passes: tuple[_ForwardPass, ...], machine: Device, samples: int
) -> dict[str, NDArray[np.float64]]:
    """(samples, classes) of each marker, the samples shared among the passes."""
    each: list[dict[str, Tensor]] = []
    for rows, own in zip(np.array_split(np.arange(samples), len(passes)), passes, strict=True):
        generators = [torch.Generator().manual_seed(int(row)) for row in rows]
        with _dropout_active(own.net):
            features = own.features.expand(len(rows), -1)
            each.append(_probabilities(own.net, features, machine, generators))
    return {k: torch.cat([a[k] for a in each]).cpu().numpy() for k in each[0]}


def used_case(net: MultiTaskNet, prepared: PreparedCase) -> PreparedCase:
    """The case without the sequences that no training case of the network had: the weights of such
    a sequence are still random. The case itself where it has all others or none of them."""
    unknown = frozenset(untrained_sequences(net.presence.weight.detach()))
    scanned = {s for s, has in zip(SEQUENCES, prepared.present, strict=True) if has}
    if not scanned & unknown or scanned <= unknown:
        return prepared
    return drop_sequences(prepared, unknown)


def drop_sequences(prepared: PreparedCase, dropped: frozenset[Scan]) -> PreparedCase:
    """The case without these sequences, dropped as in training."""
    image = np.array(prepared.image)
    for channel, sequence in enumerate(SEQUENCES):
        if sequence in dropped:
            image[channel] = 0
    present = tuple(
        has and s not in dropped for s, has in zip(SEQUENCES, prepared.present, strict=True)
    )
    return replace(prepared, image=image, present=present)


def without_untrained(prediction: Prediction, untrained: Sequence[str]) -> Prediction:
    """The prediction with NaN for the classes of markers whose heads were not trained."""
    nothing = {m: (math.nan,) * len(prediction.markers[m]) for m in untrained}
    return replace(prediction, markers={**prediction.markers, **nothing})


@dataclass(frozen=True)
class _ForwardPass:
    """net: that made it. map: (X, Y, Z) tumour probability, flipped back. features: (1,
    features)."""

    net: MultiTaskNet
    map: Tensor
    features: Tensor


def _passes(
    net: Network, prepared: PreparedCase, machine: Device, mirror: bool
) -> tuple[_ForwardPass, ...]:
    net.eval()
    passes = []
    for member in members_of(net):
        used = used_case(member, prepared)
        image = torch.from_numpy(used.image.astype(np.float32))[None].to(machine.device)
        present = torch.tensor([used.present], dtype=torch.float32, device=machine.device)
        passes.append(_pass(member, image, present, machine))
        if mirror:
            flipped = _pass(member, image.flip(2), present, machine)
            passes.append(replace(flipped, map=flipped.map.flip(0)))
    return tuple(passes)


def _pass(net: MultiTaskNet, image: Tensor, present: Tensor, machine: Device) -> _ForwardPass:
    with torch.inference_mode(), machine.autocast():
        mask, features = net.trunk(image, present)
    return _ForwardPass(net, mask.float().sigmoid()[0, 0], features)


def _heads(passes: tuple[_ForwardPass, ...], machine: Device) -> Mapping[str, Tensor]:
    """(passes, classes) of each marker; one pass at a time, as in `MultiTaskNet.forward`."""
    each = [_probabilities(p.net, p.features, machine) for p in passes]
    return {k: torch.cat([a[k] for a in each]) for k in each[0]}


def _probabilities(
    net: MultiTaskNet,
    features: Tensor,
    machine: Device,
    generators: Sequence[torch.Generator] = (),
) -> dict[str, Tensor]:
    """(n, features) to float64 class probabilities (n, classes) of each marker.

    generators: of the dropout, one a row, where it is active.
    """
    with torch.inference_mode(), machine.autocast():
        logits = {name: head(features, generators) for name, head in net.heads.items()}
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
def _dropout_active(net: MultiTaskNet) -> Iterator[None]:
    """Context in which dropout is active in the heads only."""
    layers = [m for m in net.heads.modules() if isinstance(m, RowDropout)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
