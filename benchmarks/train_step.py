"""One training step of each preset beside nnU-Net's PlainConvUNet and MONAI's SegResNet.

    python -m pip install --no-deps dynamic-network-architectures==0.4.4
    python benchmarks/train_step.py

A step is forward, loss, backward and AdamW on 4 x 96 x 96 x 96, batch 1; of `small` on 32 x 32 x 32
too, in the batches of a hospital's share. Every network runs in a
process of its own, rounds interleaved; the figures are medians. "as first written" is float32 in
the contiguous memory format, with no allocator settings; "as gliofed trains" is what
`gliofed.training` does on this machine.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from monai.networks.nets import SegResNet
from torch import nn

from gliofed.models.network import build_net
from gliofed.runtime.device import Device, keep_memory, this_machine
from gliofed.study import NetworkConfig

STEPS, REPEATS = 2, 3
LARGE, PATCHES = (96, 1), ((32, 1), (32, 2), (32, 8))
"""Voxels of a side, and cases."""
Job = tuple[str, str, int, int]
PEERS = ("nnU-Net PlainConvUNet", "MONAI SegResNet")
PRESETS = ("small", "base", "parent")
WRITTEN, OURS = "as first written", "as gliofed trains"


def jobs() -> list[Job]:
    """Network, how it is computed, voxels of a side, cases."""
    rows = [(name, "float32", *LARGE) for name in PEERS]
    rows += [(name, WRITTEN, *LARGE) for name in PRESETS]
    rows += [(name, OURS, *LARGE) for name in PRESETS]
    return rows + [("small", how, *size) for how in (WRITTEN, OURS) for size in PATCHES]


def peer(name: str) -> nn.Module:
    if name == "MONAI SegResNet":
        # the width and depth of its BraTS example
        return SegResNet(
            spatial_dims=3, in_channels=4, out_channels=1, init_filters=16,
            blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1),
        )  # fmt: skip
    # nnU-Net's default plan for such a patch: 32 to 320 channels, two convolutions a stage
    return PlainConvUNet(
        4, 5, [32, 64, 128, 256, 320], nn.Conv3d, 3, [1, 2, 2, 2, 2], 2, 2, 2,
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip


def one(name: str, how: str, side: int, cases: int) -> None:
    """Time one network and print seconds a step and peak memory in GB as JSON."""
    ours, tuned = name in PRESETS, how == OURS
    machine = this_machine() if tuned else Device(torch.device("cpu"), bf16=False)
    if tuned:
        keep_memory()
    torch.manual_seed(0)
    net = build_net(NetworkConfig(name), seed=0) if ours else peer(name)
    if ours and not tuned:
        net.spec = dataclasses.replace(net.spec, channels_last=False)
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()
    net.to(machine.device).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4)
    image = torch.randn(cases, 4, side, side, side, device=machine.device)
    present = torch.ones(cases, 4, device=machine.device)
    dropout = torch.arange(cases)
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with machine.autocast():
            out = net(image, present, dropout) if ours else net(image)
        answers = [out.mask, *out.markers.values()] if ours else [out]
        sum(a.float().square().mean() for a in answers).backward()
        optimiser.step()
        if machine.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if machine.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    count = sum(p.numel() for p in net.parameters())
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "peak": peak, "count": count}))


def main() -> None:
    found: dict[Job, list[dict[str, float]]] = {j: [] for j in jobs()}
    for _ in range(REPEATS):
        for job, runs in found.items():
            done = subprocess.run(
                [sys.executable, __file__, *map(str, job)],
                check=True,
                capture_output=True,
                text=True,
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {j: statistics.median(r["seconds"] for r in runs) for j, runs in found.items()}
    plain = medians["nnU-Net PlainConvUNet", "float32", *LARGE]
    heads = ("network", "how", "side", "cases", "parameters", "seconds", "peak GB",
             "PlainConvUNet / it", "first written / it")  # fmt: skip
    print("| " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, how, side, cases), runs in found.items():
        median = medians[name, how, side, cases]
        written = medians.get((name, WRITTEN, side, cases))
        own = f"{written / median:.1f}" if written else ""
        peers = f"{plain / median:.1f}" if (side, cases) == LARGE else ""
        peak = max(r["peak"] for r in runs)
        print(
            f"| {name} | {how} | {side} | {cases} | {runs[0]['count'] / 1e6:.1f} M | "
            f"{median:.3f} | {peak:.1f} | {peers} | {own} |"
        )


if __name__ == "__main__":
    one(*sys.argv[1:3], *map(int, sys.argv[3:])) if len(sys.argv) == 5 else main()
