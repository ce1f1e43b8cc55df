"""The layers that a network is built from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gliofed.models.presets import NetworkSpec, Triple


def norm_layer(kind: str, width: int) -> nn.Module:
    """The normalisation of `width` channels: group norm of up to 8 groups, or nothing."""
    return nn.GroupNorm(math.gcd(8, width), width) if kind == "group" else nn.Identity()


MANY_POSITIONS = 33
"""Cases times output voxels from which a bfloat16 convolution is no faster as a product."""


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` with three workarounds for the CPU.

    It computes in float32 where bfloat16 would be wrong: oneDNN's bfloat16 weight gradient
    (seen in torch 2.13) reads and writes beyond its buffers when a side is hardly larger than the
    kernel; sides of kernel + stride and more are sound. Small float32 convolutions of one
    case are computed by oneDNN: torch's native path for them is slower by half or more
    (`benchmarks/small_convolution.py`). Where the output has few voxels, most of the time goes
    into bringing the weights into oneDNN's order: in bfloat16 it is a matrix product, which takes
    them as they are.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  # as in torch
        if _few_positions(x, self):
            return self._product(x)
        if not _too_small_for_bf16(x.shape[2:], x, self):
            return self._convolved(x)
        with torch.autocast("cpu", enabled=False):
            return self._convolved(x.float())

    def _convolved(self, x: Tensor) -> Tensor:
        if not _left_to_the_slow_path(x, self):
            return super().forward(x)
        dense: Tensor = super().forward(x.to_mkldnn()).to_dense()
        return dense

    def _product(self, x: Tensor) -> Tensor:
        """The rows of the voxels under each kernel, gathered and multiplied by the weights."""
        (rows, channels), sides = x.shape[:2], x.shape[2:]
        voxels = x.flatten(2).permute(2, 0, 1).reshape(-1, rows * channels)
        padded = functional.pad(voxels, (0, 0, 1, 0))  # row 0: outside of the image
        under = _voxels_under_kernel(sides, self)
        gathered = padded.index_select(0, under.flatten()).view(*under.shape, rows, channels)
        columns = gathered.permute(2, 0, 3, 1).flatten(2)  # (B, output voxels, cin kernel)
        out = functional.linear(columns, self.weight.flatten(1), self.bias)
        return out.transpose(1, 2).reshape(rows, -1, *_output_sides(sides, self))


class ConvTranspose3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with two workarounds for the CPU.

    It computes in float32 where bfloat16 would be wrong, as `Conv3d` does; here the output is the
    larger side. Where the kernel equals the stride, no two kernels overlap: the layer is a matrix
    product whose rows are then put in place (as the pixel shuffle of Shi et al. 2016, CVPR), which
    is faster for few channels (`benchmarks/transposed_convolution.py`).
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: D102
        if output_size is None and _faster_as_a_product(x, self):
            return self._product(x)
        larger = tuple(n * s for n, s in zip(x.shape[2:], self.stride, strict=True))
        if not _too_small_for_bf16(larger, x, self):
            return super().forward(x, output_size)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float(), output_size)

    def _product(self, x: Tensor) -> Tensor:
        """(B, cin, X, Y, Z) to (B, cout, a X, b Y, c Z) with kernel and stride (a, b, c)."""
        (a, b, c), (rows, _, *sides) = self.kernel_size, x.shape
        weight = self.weight.flatten(1).t().expand(rows, -1, -1)
        bias = self.get_parameter("bias").repeat_interleave(a * b * c)[:, None]
        product = torch.baddbmm(bias, weight, x.flatten(2))  # (B, cout a b c, X Y Z)
        apart = product.view(rows, self.out_channels, a, b, c, *sides)
        together = apart.permute(0, 1, 5, 2, 6, 3, 7, 4)
        larger = (n * k for n, k in zip(sides, (a, b, c), strict=True))
        return together.reshape(rows, self.out_channels, *larger)


def _few_positions(x: Tensor, conv: nn.Conv3d) -> bool:
    """Whether the output has so few voxels that a bfloat16 matrix product is faster.

    An exported graph keeps the convolution.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return (
        torch.is_autocast_enabled("cpu")
        and conv.weight.is_contiguous()
        and x.shape[0] * math.prod(_output_sides(x.shape[2:], conv)) < MANY_POSITIONS
        and math.prod(conv.kernel_size) > 1
        and conv.dilation == (1, 1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _output_sides(sides: Sequence[int], conv: nn.Conv3d) -> list[int]:
    padding = cast("tuple[int, int, int]", conv.padding)
    settings = zip(sides, padding, conv.kernel_size, conv.stride, strict=True)
    return [(n + 2 * p - k) // s + 1 for n, p, k, s in settings]


def _voxels_under_kernel(sides: Sequence[int], conv: nn.Conv3d) -> Tensor:
    """(output voxels, kernel voxels): the input's voxels, counted from 1; 0 lies outside."""
    padding = cast("tuple[int, int, int]", conv.padding)
    found = torch.zeros([n + 2 * p for n, p in zip(sides, padding, strict=True)], dtype=torch.long)
    inner = [slice(p, p + n) for n, p in zip(sides, padding, strict=True)]
    found[tuple(inner)] = torch.arange(1, math.prod(sides) + 1).view(*sides)
    for axis, (kernel, stride) in enumerate(zip(conv.kernel_size, conv.stride, strict=True)):
        found = found.unfold(axis, kernel, stride)
    return found.flatten(3).flatten(0, 2)


def _faster_as_a_product(x: Tensor, conv: nn.ConvTranspose3d) -> bool:
    """Whether the layer is a matrix product, and that is faster.

    An exported graph keeps the convolution.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not x.is_contiguous():
        return False
    few = conv.out_channels == 1 or (conv.in_channels <= 128 and torch.is_autocast_enabled("cpu"))
    return (
        few
        and conv.kernel_size == conv.stride
        and conv.dilation == (1, 1, 1)
        and not any((*conv.padding, *conv.output_padding))
        and conv.groups == 1
        and conv.bias is not None
    )


def _too_small_for_bf16(
    sides: Sequence[int], x: Tensor, conv: nn.Conv3d | nn.ConvTranspose3d
) -> bool:
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    overlapping = [k > s for k, s in zip(conv.kernel_size, conv.stride, strict=True)]
    needed = [k + s for k, s in zip(conv.kernel_size, conv.stride, strict=True)]
    return any(o and n < m for o, n, m in zip(overlapping, sides, needed, strict=True))


def _left_to_the_slow_path(x: Tensor, conv: nn.Conv3d) -> bool:
    """Whether torch would not use oneDNN, and be slower.

    As in `use_mkldnn` of ATen's Convolution.cpp: of one case, where channels x depth x height are
    few. Kernels of 1 x 1 x 1 are as fast without oneDNN.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[0] == 1
        and math.prod(x.shape[1:-1]) <= 20480
        and math.prod(conv.kernel_size) > 1
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # (torch's)
        and not torch.is_autocast_enabled("cpu")
    )


class ConvUnit(nn.Module):
    """Convolution, normalisation, leaky ReLU."""

    def __init__(
        self, cin: int, cout: int, norm: str, kernel: Triple = (3, 3, 3), stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        a, b, c = kernel
        self.conv = Conv3d(cin, cout, kernel, stride, (a // 2, b // 2, c // 2))
        self.norm = norm_layer(norm, cout)
        self.act = nn.LeakyReLU(0.01, inplace=True) if norm == "group" else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, X, Y, Z) to (B, cout, X/stride, Y/stride, Z/stride), rounded up."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class EncoderLevel(nn.Module):
    """`count` convolution units of one width; the first may step down by `stride`."""

    def __init__(
        self, cin: int, cout: int, count: int, norm: str, stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        first = ConvUnit(cin, cout, norm, stride=stride)
        rest = [ConvUnit(cout, cout, norm) for _ in range(count - 1)]
        self.units = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, X, Y, Z) to (B, cout, ...)."""
        out: Tensor = self.units(x)
        return out


class UpBlock(nn.Module):
    """One level up: transposed convolution, crop to the skip's size, concatenate, convolve.

    cin, cout: channels before and after; the skip has `cout` channels too.
    """

    def __init__(self, cin: int, cout: int, spec: NetworkSpec, kernel: int, stride: int) -> None:
        super().__init__()
        # out = in * stride exactly, whatever the kernel
        padding = math.ceil((kernel - stride) / 2)
        self.up = ConvTranspose3d(cin, cout, kernel, stride, padding, (stride - kernel) % 2)
        self.level = EncoderLevel(2 * cout, cout, spec.convs_up, spec.norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x: (B, cin, ...) and skip: (B, cout, X, Y, Z) to (B, cout, X, Y, Z)."""
        raised = self.up(x)[..., : skip.shape[2], : skip.shape[3], : skip.shape[4]]
        out: Tensor = self.level(torch.cat([skip, raised], dim=1))
        return out


class RowDropout(nn.Module):
    """Dropout whose mask depends on the row's own generator and not on the batch that it is in."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(B, features) to the same. generators: one a row, on the CPU; not used in evaluation."""
        if not self.training or self.p == 0:
            return x
        if len(generators) != len(x):
            raise ValueError(f"dropout needs one generator a row: {len(x)}, not {len(generators)}")
        drawn = torch.stack([torch.rand(x.shape[1:], generator=g) for g in generators])
        return x * ((drawn >= self.p) / (1 - self.p)).to(x.device, x.dtype)


class ClassificationHead(nn.Module):
    """One marker: dropout, dense, ReLU, dropout, dense to class logits."""

    def __init__(self, features: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            RowDropout(dropout),
            nn.Linear(features, hidden),
            nn.ReLU(),
            RowDropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, features: Tensor, generators: Sequence[torch.Generator] = ()) -> Tensor:
        """(B, features) to (B, classes). generators: of the dropout, one a row, in training."""
        x = features
        for layer in self.layers:
            x = layer(x, generators) if isinstance(layer, RowDropout) else layer(x)
        return x
