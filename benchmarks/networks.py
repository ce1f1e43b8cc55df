"""Print the tables of docs/reference/networks.md, computed from the networks themselves.

    python benchmarks/networks.py

The receptive field is followed back along the deepest path, one axis at a time, in whole voxels:
the first and last input that a range of outputs depends on, by each layer's kernel, stride and
padding. Where it differs from one output voxel to the next, the largest stands in the table.
Normalisation is left out, though a group norm's mean reaches over the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import nn

from gliofed.models.blocks import ConvUnit, EncoderLevel, UpBlock
from gliofed.models.network import MultiTaskNet, build_net, parameter_count
from gliofed.models.presets import PRESETS
from gliofed.study import NetworkConfig


@dataclass(frozen=True)
class Step:
    """One layer on the path to the mask, all axes alike. up: it multiplies the resolution."""

    part: str
    kind: str
    channels: int
    kernel: int
    stride: int
    padding: int = 0
    up: bool = False


def path(net: MultiTaskNet) -> tuple[Step, ...]:
    """The layers that the longest way from image to mask goes through."""
    return tuple(_path(net))


def receptive_field(steps: tuple[Step, ...]) -> int:
    """How many image voxels along one axis a value after the last step depends on, at most."""
    period = math.prod(s.stride for s in steps if not s.up)
    return max(_width(steps, place) for place in range(period))


def _width(steps: tuple[Step, ...], place: int) -> int:
    """The same for the value at `place`."""
    low = high = place
    for step in reversed(steps):
        if step.up:
            low = math.ceil((low + step.padding - step.kernel + 1) / step.stride)
            high = (high + step.padding) // step.stride
        else:
            low = low * step.stride - step.padding
            high = high * step.stride - step.padding + step.kernel - 1
    return high - low + 1


def bottom(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The path down to the coarsest level, before the first way up."""
    first_up = next(i for i, s in enumerate(steps) if s.up)
    return steps[:first_up]


def _path(net: MultiTaskNet) -> Iterator[Step]:
    if net.full is not None:
        yield from _level("full", net.full)
    stem = net.stem.conv if isinstance(net.stem, ConvUnit) else net.stem
    yield _conv("stem", cast("nn.Conv3d", stem))
    for index, level in enumerate(net.down):
        if index and isinstance(net.pool, nn.MaxPool3d):
            yield Step(f"down {index + 1}", "max pool", level.units[0].conv.in_channels, 2, 2)
        yield from _level(f"down {index + 1}", level)
    for index, module in enumerate(net.up):
        up = cast("UpBlock", module)
        yield _conv(f"up {index + 1}", up.up)
        yield from _level(f"up {index + 1}", up.level)
    yield _conv("mask", cast("nn.Conv3d", net.mask))


def _level(part: str, level: EncoderLevel) -> Iterator[Step]:
    for unit in level.units:
        yield _conv(part, unit.conv)


def _conv(part: str, conv: nn.Conv3d | nn.ConvTranspose3d) -> Step:
    (kernel,), (stride,), (padding,) = set(conv.kernel_size), set(conv.stride), set(conv.padding)
    up = isinstance(conv, nn.ConvTranspose3d)
    kind = "transposed convolution" if up else "convolution"
    return Step(part, kind, conv.out_channels, kernel, stride, padding, up)


def summary() -> str:
    """One row a preset."""
    lines = [
        "| preset | parameters | of them in the heads | features read by each head "
        "| receptive field, coarsest level | receptive field, mask |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in PRESETS:
        net = build_net(NetworkConfig(name), seed=0)
        steps = path(net)
        features = net.heads["idh"].layers[1].in_features
        lines.append(
            f"| `{name}` | {parameter_count(net):,} | {parameter_count(net.heads):,} | {features} "
            f"| {receptive_field(bottom(steps))} | {receptive_field(steps)} |"
        )
    return "\n".join(lines)


def layers(name: str) -> str:
    """One row for each layer of a preset, in order."""
    lines = [
        "| part | layer | kernel | stride | channels out | voxels of the image between outputs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    distance = 1.0
    for step in path(build_net(NetworkConfig(name), seed=0)):
        distance = distance / step.stride if step.up else distance * step.stride
        lines.append(
            f"| {step.part} | {step.kind} | {step.kernel} | {step.stride} | {step.channels} "
            f"| {distance:g} |"
        )
    return "\n".join(lines)


def tables() -> str:
    """Everything that the page shows, as Markdown."""
    parts = [summary(), *(f"### `{name}`\n\n{layers(name)}" for name in PRESETS)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    print(tables())
