"""The child process: reads images under limits of memory and time, one case a line.

Run as `python -m gliofed.validation.reader_process`. It opens files for reading only. Nothing
but NumPy and this package works on what they hold.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

from gliofed.runtime.threads import side_by_side
from gliofed.types import SEQUENCES, Sequence
from gliofed.validation.case_checks import check_case, check_image, check_numbers
from gliofed.validation.findings import FileFault
from gliofed.validation.masks import check_mask_values
from gliofed.validation.reader_messages import (
    CPU_SECONDS,
    MEMORY,
    TOGETHER,
    ReadRequest,
    ReadResponse,
    begin_line,
)
from gliofed.validation.scan import CheckedScan, read_scan
from gliofed.validation.thumbnails import thumbnail


def main() -> None:
    """Read cases until the parent closes the pipe."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_CORE, 0)
    for line in sys.stdin.buffer:
        response = read_case(ReadRequest.parse(line), _begin)
        sys.stdout.buffer.write(response.line())
        sys.stdout.buffer.flush()


def read_case(request: ReadRequest, begin: Callable[[str], None]) -> ReadResponse:
    """Every fault of a case's images and masks; `begin` is called before each file is read."""
    faults: list[tuple[str, FileFault]] = []
    images: dict[Sequence, CheckedScan] = {}
    masks: dict[str, CheckedScan] = {}
    for sequence, (scan, file_faults) in _read_images(request, begin):
        faults += [(sequence.value, f) for f in file_faults]
        if scan is not None:
            faults += [(sequence.value, f) for f in check_image(scan)]
            images[sequence] = scan
    for name, path in request.masks.items():
        begin(name)
        scan, file_faults = read_scan(path)
        faults += [(name, f) for f in file_faults]
        if scan is not None:
            faults += [(name, f) for f in [*check_numbers(scan), *check_mask_values(scan)]]
            masks[name] = scan
    begin("")
    wrong = {name for name, fault in faults if fault.fatal}
    case_faults, stack = check_case(
        images, {name: mask for name, mask in masks.items() if name not in wrong}
    )
    faults += case_faults
    first_mask = next((masks[name] for name in request.masks if name in masks), None)
    picture = b""
    if request.picture and stack is not None:
        columns = [s for s in SEQUENCES if s in request.images]
        picture = thumbnail(stack, first_mask, columns)
    digests = {s.value: scan.digest for s, scan in images.items() if not scan.flat}
    return ReadResponse(tuple(faults), digests, picture)


def _read_images(
    request: ReadRequest, begin: Callable[[str], None]
) -> Iterator[tuple[Sequence, tuple[CheckedScan | None, tuple[FileFault, ...]]]]:
    if request.together:
        begin(TOGETHER)
        yield from zip(
            request.images, side_by_side(read_scan, request.images.values()), strict=True
        )
        return
    for sequence, path in request.images.items():
        begin(sequence.value)
        yield sequence, read_scan(path)


def _begin(where: str) -> None:
    _allow_cpu()
    sys.stdout.buffer.write(begin_line(where))
    sys.stdout.buffer.flush()


def _allow_cpu() -> None:
    """Allow `CPU_SECONDS` from now; after them the system ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + CPU_SECONDS)


def _limit(what: int, value: int) -> None:
    """Set the soft limit, where the system has it (macOS has no memory limit)."""
    hard = resource.getrlimit(what)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(what, (value, hard))


if __name__ == "__main__":
    main()
