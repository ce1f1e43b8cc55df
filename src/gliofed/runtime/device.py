"""Properties of this machine: device, number format, memory."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from dataclasses import dataclass

import torch

from gliofed.runtime.processes import cores

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


def processes_at_once() -> int:
    """Number of models to train in parallel: one a core of a CPU, one on an accelerator."""
    if this_machine().device.type != "cpu":
        return 1
    return cores()


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
