"""Reads files in one child process with limits, which is replaced when it dies.

A damaged or malicious file can end the child at worst. That becomes a finding of the file, and a
new child reads the rest of the case. It writes JSON lines: the pickles of the pool in
`gliofed.runtime.workers` must not come from a process that a file may have taken over.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import IO, Any, Final, Self

from gliofed import version
from gliofed.errors import DataError
from gliofed.runtime.processes import cores
from gliofed.validation.findings import FileFault
from gliofed.validation.reader_messages import (
    CPU_SECONDS,
    MEMORY,
    TOGETHER,
    ReadRequest,
    ReadResponse,
)

CHILD: Final = "gliofed.validation.reader_process"
WALL_SECONDS: Final = 120.0
"""Longest wait for a message of the child; slow disks need time."""
MAX_RESPONSE_BYTES: Final = 2**24
_PIECE: Final = 2**16


class SafeReader:
    """Reads cases one after the other in a child process: Python with the arguments `child`."""

    def __init__(
        self, wall_seconds: float = WALL_SECONDS, child: Sequence[str] = ("-m", CHILD)
    ) -> None:
        self._wall, self._arguments = wall_seconds, tuple(child)
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed on exit)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._stderr.close()

    def look(self, request: ReadRequest) -> ReadResponse:
        """As `reader_process.read_case`; FILE-MEMORY, -TIME or -CRASH for files that end the child.

        Raises DataError where no child can be started at all.
        """
        lost: list[tuple[str, FileFault]] = []
        request = replace(request, together=len(request.images) > 1 and cores() > 1)
        while True:
            where, response = self._request(request)
            if where == TOGETHER and not isinstance(response, ReadResponse):
                request = replace(request, together=False)  # finds the file that ends the child
                continue
            if isinstance(response, ReadResponse):
                return replace(response, faults=(*lost, *response.faults))
            if where is None:
                raise DataError(
                    f"the checking process cannot run: {response.text}; check that "
                    f"{sys.executable} has memory and may start programs"
                )
            lost.append((where, response))
            if not where:  # the comparisons failed: no file to leave out
                return ReadResponse(tuple(lost), {}, b"")
            request = _without(request, where)

    def _request(self, request: ReadRequest) -> tuple[str | None, ReadResponse | FileFault]:
        """The file last begun, and the response; a fault where the child died."""
        child = self._child or self._start()
        where: str | None = None
        try:
            assert child.stdin is not None
            child.stdin.write(request.line())
            child.stdin.flush()
            while "begin" in (message := self._receive(child)):
                where = str(message["begin"])
            return where, ReadResponse.parse(message)
        except TimeoutError:
            self._end()
            return where, FileFault("FILE-TIME", f"no response in {self._wall:g} s")
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return where, self._died()

    def _receive(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next line. Raises TimeoutError, EOFError, or ValueError for no JSON object."""
        assert child.stdout is not None
        until = monotonic() + self._wall
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not ready.select(max(0.0, until - monotonic())):
                    raise TimeoutError
                piece = os.read(child.stdout.fileno(), _PIECE)
                if not piece:
                    raise EOFError
                self._buffer += piece
                if len(self._buffer) > MAX_RESPONSE_BYTES:
                    raise ValueError("too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no object")  # noqa: TRY004  (of the line, not of a type)
        return message

    def _start(self) -> subprocess.Popen[bytes]:
        source = str(Path(version.__file__).parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._buffer = b""
        self._stderr.seek(0)
        self._stderr.truncate()
        try:
            self._child = subprocess.Popen(  # noqa: S603  (our own interpreter)
                [sys.executable, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                start_new_session=True,
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise DataError(f"the checking process cannot be started ({error})") from None
        return self._child

    def _died(self) -> FileFault:
        """The fault by the child's exit status and its error output."""
        status = self._end()
        self._stderr.seek(0)
        text = self._stderr.read(_PIECE).decode("utf-8", "replace").strip()
        if status == -signal.SIGXCPU:
            return FileFault("FILE-TIME", f"over {CPU_SECONDS} s of computing")
        if "MemoryError" in text or status == -signal.SIGKILL:
            return FileFault("FILE-MEMORY", f"over {MEMORY >> 20} MiB")
        last = text.splitlines()[-1] if text else f"status {status}"
        return FileFault("FILE-CRASH", last)

    def _end(self) -> int:
        """Close the child's input, wait one second, then kill it; returns its exit status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        with suppress(OSError):
            if child.stdin is not None:
                child.stdin.close()
        try:
            child.wait(1.0)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
        return child.returncode


def _without(request: ReadRequest, where: str) -> ReadRequest:
    """The request without one file, given by its sequence or its mask's name."""
    return ReadRequest(
        {s: p for s, p in request.images.items() if s != where},
        {n: p for n, p in request.masks.items() if n != where},
        request.picture,
        request.together,
    )
