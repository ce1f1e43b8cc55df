"""One training step of each preset beside nnU-Net's PlainConvUNet and MONAI's SegResNet.

    python -m pip install --no-deps dynamic-network-architectures==0.4.4
    python benchmarks/train_step.py

A step is forward, loss, backward and AdamW on 4 x 96 x 96 x 96, batch 1. Every network runs in a
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

SIZE, STEPS, REPEATS = 96, 2, 3
PEERS = ("nnU-Net PlainConvUNet", "MONAI SegResNet")
PRESETS = ("small", "base", "parent")
WRITTEN, OURS = "as first written", "as gliofed trains"


def jobs() -> list[tuple[str, str]]:
    rows = [(name, "float32") for name in PEERS]
    rows += [(name, WRITTEN) for name in PRESETS]
    return rows + [(name, OURS) for name in PRESETS]


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


def one(name: str, how: str) -> None:
    """Time one network and print seconds a step and peak memory in GB as JSON."""
    ours, tuned = name in PRESETS, how == OURS
    machine = this_machine() if tuned else Device(torch.device("cpu"), bf16=False)
    if tuned:
        keep_memory()
    torch.manual_seed(0)
    net = build_net(name, None, seed=0) if ours else peer(name)
    if ours and not tuned:
        net.spec = dataclasses.replace(net.spec, channels_last=False)
        for parameter in net.parameters():
            parameter.data = parameter.data.contiguous()
    net.to(machine.device).train()
    optimiser = torch.optim.AdamW(net.parameters(), 1e-4)
    image = torch.randn(1, 4, SIZE, SIZE, SIZE, device=machine.device)
    present = torch.ones(1, 4, device=machine.device)
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        with machine.autocast():
            out = net(image, present, torch.zeros(1, dtype=torch.int64)) if ours else net(image)
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
    found: dict[tuple[str, str], list[dict[str, float]]] = {j: [] for j in jobs()}
    for _ in range(REPEATS):
        for job, runs in found.items():
            done = subprocess.run(
                [sys.executable, __file__, *job], check=True, capture_output=True, text=True
            )
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {j: statistics.median(r["seconds"] for r in runs) for j, runs in found.items()}
    plain = medians["nnU-Net PlainConvUNet", "float32"]
    heads = ("network", "how", "parameters", "seconds", "peak GB", "PlainConvUNet / it",
             "first written / it")  # fmt: skip
    print("| " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|---|")
    for (name, how), runs in found.items():
        written = medians.get((name, WRITTEN))
        own = f"{written / medians[name, how]:.1f}" if written else ""
        peak = max(r["peak"] for r in runs)
        print(
            f"| {name} | {how} | {runs[0]['count'] / 1e6:.1f} M | {medians[name, how]:.3f} | "
            f"{peak:.1f} | {plain / medians[name, how]:.1f} | {own} |"
        )


if __name__ == "__main__":
    one(*sys.argv[1:]) if len(sys.argv) == 3 else main()
