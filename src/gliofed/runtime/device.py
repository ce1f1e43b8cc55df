"""Properties of this machine: device, number format, memory."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import torch

from gliofed.runtime.processes import cores

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True)
class Device:
    """device: of all tensors. bf16: whether autocast to bfloat16 is faster there."""

    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """Mixed precision for the forward pass; losses stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def this_machine() -> Device:
    """The accelerator if there is one, else the CPU; bf16 where the hardware computes in it."""
    if torch.cuda.is_available():
        torch.backends.cudnn.deterministic = True
        return Device(torch.device("cuda"), torch.cuda.is_bf16_supported())
    return Device(torch.device("cpu"), _cpu_bf16())


def accelerators() -> tuple[str, ...]:
    """The GPUs that this process may use, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    number = torch.cuda.device_count()
    chosen = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return tuple(chosen[:number] or map(str, range(number)))


def processes_at_once() -> int:
    """Number of models to train in parallel: one a GPU, or one a core of a CPU without any."""
    return len(accelerators()) or cores()


def process_environments(processes: int) -> tuple[Mapping[str, str], ...]:
    """For each of several processes at a time, variables that give it one GPU; empty without any.

    More processes than GPUs are spread evenly over them.
    """
    names = accelerators()
    return tuple({_VISIBLE: names[n % len(names)]} for n in range(processes)) if names else ()


def models_a_gpu(processes: int) -> int:
    """How many of `processes` at a time are on one GPU at most; 1 without any."""
    names = accelerators()
    return math.ceil(processes / len(names)) if names else 1


def keep_to_share(models: int) -> None:
    """Keep this process to its part of the memory of a GPU that `models` share: one that is too
    large then fails itself, and not another one."""
    if models > 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1 / models)


def accelerator_peak(machine: Device) -> int:
    """Largest number of bytes of tensors on the accelerator so far; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() if machine.device.type == "cuda" else 0


def keep_memory() -> None:
    """Set glibc to keep freed memory, so that its pages are not mapped again in each step.

    Training on the CPU is up to a third faster, inference on a full brain more
    (`benchmarks/infer.py`). Without glibc this has no effect.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(M_TOP_PAD, 128 * 2**20)


def _cpu_bf16() -> bool:
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(has is not None and has())
