"""Transposed convolutions whose kernel equals their stride: torch's own, and as a matrix product.

    python benchmarks/transposed_convolution.py

Forward and backward in turns, medians in milliseconds: the mask layer of `small` and the steps up
of `small` and `base`, in the sizes of a patch. The rule of `gliofed.models.blocks` follows from it.
"""

from __future__ import annotations

import statistics
import time
from itertools import product

import torch
from torch import Tensor, nn

from gliofed.models.blocks import ConvTranspose3d
from gliofed.runtime.device import keep_memory

REPEATS = 9
MASK = [
    ((24, 1), sides, rows)
    for sides in ((16, 16, 16), (32, 40, 16), (48, 48, 48))
    for rows in (1, 2, 8)
]
SMALL = ((48, 24), (96, 48), (192, 96))
BASE = ((64, 32), (128, 64), (256, 128), (320, 256))


def jobs() -> list[tuple[tuple[int, int], tuple[int, ...], int]]:
    """Channels, sides of the input, and cases."""
    found = list(MASK)
    for widths, first in ((SMALL, 16), (SMALL, 48), (BASE, 32), (BASE, 96)):
        for level, channels in enumerate(widths, 1):
            side = first >> level
            found += [(channels, (side,) * 3, rows) for rows in ((1, 8) if first == 16 else (1,))]
    return found


def seconds(layer: nn.ConvTranspose3d, image: Tensor, towards: Tensor, ours: bool) -> float:
    forward = ConvTranspose3d._product if ours else nn.ConvTranspose3d.forward
    layer.zero_grad()
    x = image.clone().requires_grad_()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=image.dtype == torch.bfloat16):
        forward(layer, x).backward(towards)
    return time.perf_counter() - started


def main() -> None:
    keep_memory()
    print(f"torch {torch.__version__}, median of {REPEATS}, milliseconds")
    print("| threads | format | channels | input | cases | torch's | product | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for threads, dtype, (channels, sides, rows) in product(
        (1, 2), (torch.float32, torch.bfloat16), jobs()
    ):
        torch.set_num_threads(threads)
        layer = ConvTranspose3d(*channels, 2, 2)
        image = torch.randn(rows, channels[0], *sides, dtype=dtype)
        towards = torch.randn(rows, channels[1], *(2 * n for n in sides), dtype=dtype)
        runs = [
            [seconds(layer, image, towards, ours) for ours in (False, True)]
            for _ in range(REPEATS + 1)
        ][1:]
        own, products = (1e3 * statistics.median(column) for column in zip(*runs, strict=True))
        size = " x ".join(map(str, sides))
        print(
            f"| {threads} | {str(dtype).removeprefix('torch.')} | {channels[0]} to {channels[1]} | "
            f"{size} | {rows} | {own:.2f} | {products:.2f} | {own / products:.2f} |"
        )


if __name__ == "__main__":
    main()
