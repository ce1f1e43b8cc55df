"""The child process: reads images under limits of memory and time, and answers line by line.

Run as `python -m gliofed.validation.reader_process`. It opens files for reading only, and imports NumPy alone.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from contextlib import suppress

from gliofed.types import SEQUENCES, Sequence
from gliofed.validation.case_checks import check_case, check_image, check_numbers
from gliofed.validation.findings import FileFault
from gliofed.validation.masks import check_mask_values
from gliofed.validation.reader_messages import (
    CPU_SECONDS,
    MEMORY,
    ReadRequest,
    ReadResponse,
    begin_line,
)
from gliofed.validation.scan import CheckedScan, read_scan
from gliofed.validation.thumbnails import thumbnail


def main() -> None:
    """Answer jobs until the parent closes the pipe."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    for line in sys.stdin.buffer:
        answer = read_case(ReadRequest.parse(line), _begin)
        sys.stdout.buffer.write(answer.line())
        sys.stdout.buffer.flush()


def read_case(job: ReadRequest, begin: Callable[[str], None]) -> ReadResponse:
    """Every fault of a case's images and masks; `begin` is told of each file before it is read."""
    faults: list[tuple[str, FileFault]] = []
    images: dict[Sequence, CheckedScan] = {}
    masks: dict[str, CheckedScan] = {}
    for sequence, path in job.images.items():
        begin(sequence.value)
        scan, found = read_scan(path)
        faults += [(sequence.value, f) for f in found]
        if scan is not None:
            faults += [(sequence.value, f) for f in check_image(scan)]
            images[sequence] = scan
    for name, path in job.masks.items():
        begin(name)
        scan, found = read_scan(path)
        faults += [(name, f) for f in found]
        if scan is not None:
            faults += [(name, f) for f in [*check_numbers(scan), *check_mask_values(scan)]]
            masks[name] = scan
    begin("")
    found_here, stack = check_case(images, masks)
    faults += found_here
    outlined = next((masks[name] for name in job.masks if name in masks), None)
    picture = b""
    if job.picture and stack is not None:
        columns = [s for s in SEQUENCES if s in job.images]
        picture = thumbnail(stack, outlined, columns)
    digests = {s.value: scan.digest for s, scan in images.items() if not scan.flat}
    return ReadResponse(tuple(faults), digests, picture)


def _begin(where: str) -> None:
    _allow_cpu()
    sys.stdout.buffer.write(begin_line(where))
    sys.stdout.buffer.flush()


def _allow_cpu() -> None:
    """A fresh allowance; past it the system ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_SECONDS)


def _limit(what: int, value: int) -> None:
    """Set the soft limit, where the system has such a one (macOS has no limit of memory)."""
    hard = resource.getrlimit(what)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (value, hard))


if __name__ == "__main__":
    main()
