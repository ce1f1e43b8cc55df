"""What it costs to explain a whole brain: gliofed's occlusion, MONAI's, and integrated gradients.

    python benchmarks/occlusion.py

A synthetic brain of 150 x 180 x 150 mm with a tumour, the `small` preset with random weights, one
thread, float32. For each way: how often the network is asked, CPU seconds each time (median of
three) and the most memory that a process of its own held. Integrated gradients (Sundararajan et al.
2017, ICML) are one forward and one backward pass a step; they take 20 to 300 steps, and a run for
every marker.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gliofed.data.store import PreparedCase
from gliofed.inference.forward import predict
from gliofed.inference.occlusion import BLOCK_MM, MAX_PASSES, plan_occlusion
from gliofed.models.network import build_net
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig
from gliofed.types import SEQUENCES, Case, Labels, PreparationMeasures

SIZE, BRAIN, TUMOUR, STEPS, REPEATS = (150, 180, 150), (66, 82, 62), 23, 50, 3
FEW = [70, 71, 85, 86, 40, 105]
"""Where MONAI's is timed: a column of some blocks."""
CPU = Device(torch.device("cpu"), False)


def drawn() -> tuple[PreparedCase, np.ndarray]:
    """A case, and the outline of its tumour."""
    middle = (np.array(SIZE) / 2)[:, None, None, None]
    place = np.indices(SIZE) - middle
    brain = ((place / np.array(BRAIN)[:, None, None, None]) ** 2).sum(0) < 1
    tumour = ((place - np.array([30, 10, 15])[:, None, None, None]) ** 2).sum(0) < TUMOUR**2
    rng = np.random.default_rng(0)
    image = np.where(brain, rng.standard_normal((4, *SIZE), np.float32) + tumour, 0)
    case = Case("drawn", "here", "drawn", dict.fromkeys(SEQUENCES, Path()), None, Labels())
    measures = PreparationMeasures(brain.sum() / 1e6, None, {})
    prepared = PreparedCase(case, "drawn", image.astype(np.float16), None, (True,) * 4, np.eye(4),
                        None, {}, None, measures)  # fmt: skip
    return prepared, tumour


class Flat(nn.Module):
    """All markers' logits as one vector, as MONAI wants them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        return torch.cat(list(self.net(image, present).markers.values()), 1)


class Timed(nn.Module):
    """Keeps when it was asked."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seconds = inner, []

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        self.seconds.append(time.process_time())
        return self.inner(image, present)


def own() -> tuple[int, float]:
    prepared, outline = drawn()
    plan, net = (
        plan_occlusion(prepared, outline, mirror=False),
        build_net(NetworkConfig("small"), 0),
    )
    return plan.passes, timed(lambda: predict(net, prepared, CPU, False))


def monai(step: int) -> tuple[int, float]:
    from monai.data.utils import dense_patch_slices
    from monai.visualize import OcclusionSensitivity

    warnings.simplefilter("ignore")  # of indexing that torch announced to change
    prepared, _ = drawn()
    image = torch.from_numpy(prepared.image.astype(np.float32))[None]
    net, side = Timed(Flat(build_net(NetworkConfig("small"), 0))), round(BLOCK_MM)
    seen = OcclusionSensitivity(net, side, n_batch=1, verbose=False, mode=0.0, overlap=0)
    with torch.no_grad():
        seen(image, b_box=FEW, present=torch.ones(1, 4))
    asked = len(dense_patch_slices(SIZE, (side,) * 3, (step,) * 3))
    return asked, statistics.median(np.diff(net.seconds))


def gradients() -> tuple[int, float]:
    prepared, _ = drawn()
    net = build_net(NetworkConfig("small"), 0).eval().requires_grad_(False)
    image = torch.from_numpy(prepared.image.astype(np.float32))[None].requires_grad_()

    def step() -> None:
        logits = net(image, torch.ones(1, 4)).markers["idh"]
        torch.autograd.grad(logits.softmax(1)[0, 1], image)

    return STEPS, timed(step)


def timed(work: Callable[[], object]) -> float:
    found = []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return statistics.median(found[1:])


WAYS: dict[str, tuple[str, Callable[[], tuple[int, float]]]] = {
    "own": (f"gliofed, blocks of {BLOCK_MM:.0f} mm, at most {MAX_PASSES}", own),
    "monai-0": ("MONAI, side by side", lambda: monai(round(BLOCK_MM))),
    "monai-half": ("MONAI, half a side apart", lambda: monai(round(BLOCK_MM / 2))),
    "gradients": (f"integrated gradients, {STEPS} steps, one marker", gradients),
}


def main() -> None:
    print(f"torch {torch.__version__}, {SIZE} voxels, one thread")
    print("| way | times asked | CPU seconds each | minutes | peak GB |")
    print("|---|---:|---:|---:|---:|")
    for name, (title, _) in WAYS.items():
        told = subprocess.run(
            [sys.executable, __file__, name], capture_output=True, text=True, check=True
        )
        asked, seconds, peak = (float(v) for v in told.stdout.split())
        cells = f"{asked:.0f} | {seconds:.2f} | {asked * seconds / 60:.1f} | {peak:.1f}"
        print(f"| {title} | {cells} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        times, each = WAYS[sys.argv[1]][1]()
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(times, each, peak_kb / 2**20)
    else:
        main()
