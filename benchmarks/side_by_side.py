"""One process on all threads beside as many processes of one thread each: seconds a training step.

    python benchmarks/side_by_side.py

Three shapes: the demonstration's samples, crops of 32 voxels, and thick-sliced whole brains. What
counts is a step of any of the models: a step's seconds divided by the models trained at once.
Interleaved rounds; medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import torch

from gliofed.models.network import build_net
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.study import NetworkConfig

SHAPES = (((32, 40, 32), 1, (2, 2, 2)), ((32, 32, 32), 8, (1, 1, 1)), ((80, 96, 32), 2, (2, 2, 1)))
STEPS, REPEATS = 8, 3


def one(shape: int, threads: int) -> None:
    """Time one network in this process and print seconds a step."""
    patch, batch, stem = SHAPES[shape]
    torch.set_num_threads(threads)
    keep_memory()
    machine = this_machine()
    net = build_net(NetworkConfig("small", stem), seed=0)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    image, present = torch.randn(batch, 4, *patch), torch.ones(batch, 4)
    seconds = []
    for _ in range(STEPS + 2):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with machine.autocast():
            out = net(image, present, torch.arange(batch))
        sum(a.float().square().mean() for a in (out.mask, *out.markers.values())).backward()
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    print(statistics.median(seconds[2:]))


def together(shape: int, processes: int, threads: int) -> float:
    """Seconds a step, over all processes at once."""
    command = [sys.executable, __file__, str(shape), str(threads)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    found = [float(p.communicate()[0].split()[-1]) for p in running]
    return statistics.mean(found) / processes


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"| patch | batch | 1 x {cores} threads, s | {cores} x 1 thread, s a model | ratio |")
    print("|---|---:|---:|---:|---:|")
    for shape, (patch, batch, _) in enumerate(SHAPES):
        rounds = [(together(shape, 1, cores), together(shape, cores, 1)) for _ in range(REPEATS)]
        alone, beside = (statistics.median(r[i] for r in rounds) for i in (0, 1))
        name = " x ".join(map(str, patch))
        print(f"| {name} | {batch} | {alone:.3f} | {beside:.3f} | {alone / beside:.2f} |")


if __name__ == "__main__":
    one(*map(int, sys.argv[1:])) if len(sys.argv) == 3 else main()
