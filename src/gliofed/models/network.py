"""The multi-task U-Net after van der Voort et al. 2023 (Neuro-Oncology 25:279).

Global max pooling at every level, down and up, gives the features of the marker heads. The code of
present sequences is added to the first convolution and to the features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gliofed.errors import StudyError
from gliofed.fine_tuning_config import Part, PersonalParts
from gliofed.markers import MARKERS
from gliofed.models.blocks import (
    ClassificationHead,
    Conv3d,
    ConvTranspose3d,
    ConvUnit,
    EncoderLevel,
    UpBlock,
)
from gliofed.models.pooling import global_max, pool_in_mask, pooled_features
from gliofed.models.presets import PRESETS, NetworkSpec, Triple
from gliofed.study import NetworkConfig
from gliofed.types import SEQUENCES, Sequence

TensorT = TypeVar("TensorT")
MASK_TASK = "mask"
TRUNK_TASK = "trunk"
MASK_PRIOR_LOGIT = -3.0
"""Initial bias of the mask output: a probability of 0.05."""


class NetworkOutput(NamedTuple):
    """The outputs of the network for a batch.

    mask: logits (B, 1, X, Y, Z) on the input's grid. markers: marker id to logits (B, classes).
    """

    mask: Tensor
    markers: Mapping[str, Tensor]


class MultiTaskNet(nn.Module):
    """One shared encoder-decoder, one mask, one head a marker.

    Any input size works: sizes are rounded up level by level and the mask is cropped back.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        widths, norm, first = spec.widths, spec.norm, spec.widths[0]
        self.presence = nn.Linear(len(SEQUENCES), first, bias=False)
        self.full = EncoderLevel(len(SEQUENCES), first, 1, norm) if spec.full_level else None
        self.stem = _stem(spec)
        below = widths[1:] if spec.full_level else widths
        self.down = nn.ModuleList()
        before = first
        for index, width in enumerate(below):
            stride = (1, 1, 1) if spec.pool or index == 0 else (2, 2, 2)
            self.down.append(EncoderLevel(before, width, spec.convs_down, norm, stride))
            before = width
        self.pool = nn.MaxPool3d(2, ceil_mode=True) if spec.pool else nn.Identity()
        self.up = nn.ModuleList()
        for width in reversed(below[:-1]):
            self.up.append(UpBlock(before, width, spec, 2, 2))
            before = width
        if spec.full_level:
            self.up.append(UpBlock(before, first, spec, spec.stem_kernel[0], spec.stem_stride[0]))
        self.mask = _mask_layer(spec)
        channels = sum(widths) + sum(widths[:-1])
        features = pooled_features(channels, spec.pooling) + len(SEQUENCES)
        self.heads = nn.ModuleDict(
            {
                m.id: ClassificationHead(features, spec.hidden, len(m.classes), spec.dropout)
                for m in MARKERS
            }
        )

    def forward(
        self, image: Tensor, present: Tensor, dropout: Tensor | None = None
    ) -> NetworkOutput:
        """image: (B, 4, X, Y, Z) z-scored, 0 where absent; present: (B, 4) in {0, 1}.

        dropout: (B,) seeds of the heads' dropout, required in training mode.
        """
        mask, features = self.trunk(image, present)
        seeds = [] if dropout is None or not self.training else dropout.tolist()
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        return NetworkOutput(
            mask, {name: head(features, generators) for name, head in self.heads.items()}
        )

    def trunk(self, image: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits, as in `NetworkOutput`, and (B, features), the input of every head."""
        if self.spec.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        code = self.presence(present)[:, :, None, None, None]
        skips: list[Tensor] = []
        if self.full is None:
            x = self.stem(image) + code
        else:
            skips.append(self.full(image) + code)
            x = self.stem(skips[0])
        for index, level in enumerate(self.down):
            x = level(self.pool(x) if index else x)
            skips.append(x)
        levels = list(skips)
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
            levels.append(x)
        size = image.shape[2:]
        mask = self.mask(x)[..., : size[0], : size[1], : size[2]]
        pooled = [global_max(level) for level in levels]
        if self.spec.pooling == "mask":
            pooled += pool_in_mask(levels, mask, self._strides())
        return mask, torch.cat([*pooled, present.to(pooled[0].dtype)], dim=1)

    def _strides(self) -> tuple[Triple, ...]:
        """Of each level on the way down, from the level above it; the first from the image."""
        below: tuple[Triple, ...] = ((2, 2, 2),) * (len(self.down) - 1)
        first: tuple[Triple, ...] = ((1, 1, 1),) if self.full is not None else ()
        return (*first, self.spec.stem_stride, *below)


def build_net(config: NetworkConfig, seed: int) -> MultiTaskNet:
    """`network_from_spec` of `spec_of` the settings; raises as that."""
    return network_from_spec(spec_of(config), seed)


def spec_of(config: NetworkConfig) -> NetworkSpec:
    """A preset, changed as the settings say.

    Raises StudyError for an unknown preset, and for a stem with "parent", whose stem is fixed.
    """
    if config.preset not in PRESETS:
        raise StudyError(f"net.preset: {config.preset!r} is none of {sorted(PRESETS)}")
    spec = PRESETS[config.preset]
    if config.stem is not None:
        if spec.full_level:
            raise StudyError(f"net.stem: preset {config.preset!r} has a fixed one; remove the key")
        spec = dataclasses.replace(spec, stem_stride=config.stem)
    if config.pooling is not None:
        spec = dataclasses.replace(spec, pooling=config.pooling)
    return spec


def network_from_spec(spec: NetworkSpec, seed: int) -> MultiTaskNet:
    """A network of these layers, its weights determined by `seed` alone (He et al. 2015)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MultiTaskNet(spec)
        _initialise(net)
    if spec.channels_last:
        for parameter in net.parameters():
            if parameter.dim() == 5:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return net


def _initialise(net: MultiTaskNet) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # about the tumour's share of the brain, so that training does not start with a large loss on
    # the background (Lin et al. 2017, Focal loss for dense object detection, ICCV, section 4.1)
    nn.init.constant_(net.mask.get_parameter("bias"), MASK_PRIOR_LOGIT)
    nn.init.zeros_(net.presence.weight)  # the code of present sequences has no effect at first
    for name, parameter in net.heads.named_parameters():
        if name.endswith("layers.4.weight"):
            nn.init.normal_(parameter, std=0.01)  # begin with even probabilities


def untrained_sequences(presence: Tensor) -> tuple[Sequence, ...]:
    """The sequences that no training case had. presence: the weights of the code of present
    sequences, (features, 4).

    The code begins as 0 and has no gradient for a sequence that is always absent. Empty for a
    network that was not trained, and where noise was added to gradients.
    """
    trained = presence.abs().amax(0) > 0
    if not trained.any():
        return ()
    return tuple(s for s, known in zip(SEQUENCES, trained.tolist(), strict=True) if not known)


def task_of(parameter: str) -> str:
    """The task whose labels train a parameter: a marker id, "mask", or "trunk" for shared ones.

    >>> task_of("heads.idh.layers.1.weight"), task_of("mask.bias"), task_of("up.0.up.weight")
    ('idh', 'mask', 'trunk')
    """
    parts = parameter.split(".")
    if parts[0] == "heads":
        return parts[1]
    return MASK_TASK if parts[0] == "mask" else TRUNK_TASK


def part_of(parameter: str) -> Part:
    """The part of the network that a parameter belongs to.

    >>> part_of("stem.conv.weight"), part_of("up.0.up.weight"), part_of("mask.bias")
    ('encoder', 'decoder', 'heads')
    """
    if task_of(parameter) != TRUNK_TASK:
        return "heads"
    return "decoder" if parameter.startswith("up.") else "encoder"


def without_frozen(tensors: Mapping[str, TensorT], frozen: Collection[Part]) -> dict[str, TensorT]:
    """Those of the parameters that are trained, by name. frozen: parts that are not."""
    return {name: t for name, t in tensors.items() if part_of(name) not in frozen}


def is_personal(parameter: str, parts: PersonalParts) -> bool:
    """Whether a site trains a parameter in its personal model.

    >>> [is_personal("up.0.level.units.0.norm.bias", p) for p in get_args(PersonalParts)]
    [True, False, True]
    """
    is_norm = ".norm." in parameter and parts == "norm_and_heads"
    return parts == "all" or is_norm or part_of(parameter) == "heads"


def train_only(net: nn.Module, trained: Collection[str]) -> dict[str, nn.Parameter]:
    """Exclude all other parameters from training; those of the names `trained`, by name.

    The others get no gradient, so that neither clipping nor an optimiser sees them.
    """
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    return {name: p for name, p in net.named_parameters() if name in trained}


def parameter_count(net: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in net.parameters())


def _stem(spec: NetworkSpec) -> nn.Module:
    """The first downsampling step: a bare convolution below a full level, else a convolution
    unit."""
    a, b, c = spec.stem_kernel
    if spec.full_level:
        width, padding = spec.widths[0], (a // 2, b // 2, c // 2)
        return Conv3d(width, width, spec.stem_kernel, spec.stem_stride, padding)
    kernel, stride = spec.stem_kernel, spec.stem_stride
    return ConvUnit(len(SEQUENCES), spec.widths[0], spec.norm, kernel, stride)


def _mask_layer(spec: NetworkSpec) -> Conv3d | ConvTranspose3d:
    """Mask logits at full resolution from the finest level's channels."""
    if spec.full_level or spec.stem_stride == (1, 1, 1):
        return Conv3d(spec.widths[0], 1, 1)
    return ConvTranspose3d(spec.widths[0], 1, spec.stem_stride, spec.stem_stride)
