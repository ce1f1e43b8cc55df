"""Memory of this machine and of this process."""

from __future__ import annotations

import os
import resource
import sys


def physical_memory() -> int | None:
    """Bytes of memory of the machine; None where the system does not state them."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory() -> int:
    """The largest number of bytes that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the machine or of an accelerator, was too small; torch is not imported."""
    of_accelerator = "OutOfMemoryError" in (kind.__name__ for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or of_accelerator or "DefaultCPUAllocator" in str(error)
