"""A training step of one small case in float32: with torch's own choice of convolution, and ours.

    python benchmarks/small_convolution.py

Forward and backward of the `small` preset on one thread, in turns; medians. A CPU without bfloat16
trains in float32, and sites that share a batch often take one case a step.
"""

from __future__ import annotations

import statistics
import time
from unittest import mock

import torch

from gliofed.models import blocks
from gliofed.models.network import build_net
from gliofed.runtime.device import keep_memory
from gliofed.study import NetworkConfig

SIDES, REPEATS = ((32, (2, 2, 2)), (32, None), (48, (2, 2, 2))), 9


def seconds(side: int, stem: tuple[int, int, int] | None, ours: bool) -> float:
    net = build_net(NetworkConfig("small", stem), seed=0)
    image, present = torch.randn(1, 4, side, side, side), torch.ones(1, 4)
    found = []
    choice = blocks._left_to_the_slow_path if ours else lambda *_: False
    with mock.patch.object(blocks, "_left_to_the_slow_path", choice):
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            answers = net(image, present, torch.zeros(1, dtype=torch.int64))
            (answers.mask.mean() + sum(a.sum() for a in answers.markers.values())).backward()
            found.append(time.perf_counter() - started)
    return found[-1]


def main() -> None:
    torch.set_num_threads(1)
    keep_memory()
    print(f"torch {torch.__version__}, median of {REPEATS} steps, seconds")
    for side, stem in SIDES:
        pairs = [[seconds(side, stem, ours) for ours in (False, True)] for _ in range(REPEATS)]
        theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
        what = f"{side} cubed, first stride {stem or 1}"
        print(f"{what}: torch's {theirs:.3f}, ours {own:.3f}, {theirs / own:.2f} times faster")


if __name__ == "__main__":
    main()
