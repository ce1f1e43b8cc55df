"""The parent's half of safe reading: one limited child process, replaced when it dies.

A damaged or hostile file can at worst end the child; that becomes a finding of the file, and the
rest of the case is looked at by a new child.
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
from gliofed.validation.findings import FileFault
from gliofed.validation.reader_messages import CPU_SECONDS, MEMORY, ReadRequest, ReadResponse

CHILD: Final = "gliofed.validation.reader_process"
WALL_SECONDS: Final = 120.0
"""Without a word of the child: a slow disk is no fault of the file's."""
MAX_RESPONSE_BYTES: Final = 2**24
_PIECE: Final = 2**16


class SafeReader:
    """Looks at cases, one after the other, in one child: Python with the arguments `child`."""

    def __init__(
        self, wall_seconds: float = WALL_SECONDS, child: Sequence[str] = ("-m", CHILD)
    ) -> None:
        self._wall, self._arguments = wall_seconds, tuple(child)
        self._child: subprocess.Popen[bytes] | None = None
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed on exit)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._words.close()

    def look(self, job: ReadRequest) -> ReadResponse:
        """As `child.look`, and FILE-MEMORY, FILE-TIME or FILE-CRASH for files that end the child.

        Raises DataError where no child can be started at all.
        """
        lost: list[tuple[str, FileFault]] = []
        while True:
            where, answer = self._ask(job)
            if isinstance(answer, ReadResponse):
                return replace(answer, faults=(*lost, *answer.faults))
            if where is None:
                raise DataError(
                    f"the checking process cannot run: {answer.text}; check that "
                    f"{sys.executable} has memory and may start programs"
                )
            lost.append((where, answer))
            if not where:  # the comparisons: nothing is left to try
                return ReadResponse(tuple(lost), {}, b"")
            job = _without(job, where)

    def _ask(self, job: ReadRequest) -> tuple[str | None, ReadResponse | FileFault]:
        """The file last begun, and the answer; a fault where the child died over it."""
        child = self._child or self._start()
        where: str | None = None
        try:
            assert child.stdin is not None
            child.stdin.write(job.line())
            child.stdin.flush()
            while "begin" in (said := self._hear(child)):
                where = str(said["begin"])
            return where, ReadResponse.parse(said)
        except TimeoutError:
            self._end()
            return where, FileFault("FILE-TIME", f"no answer in {self._wall:g} s")
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return where, self._died()

    def _hear(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The next line. Raises TimeoutError, EOFError, or ValueError for no JSON object."""
        assert child.stdout is not None
        until = monotonic() + self._wall
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not ready.select(max(0.0, until - monotonic())):
                    raise TimeoutError
                piece = os.read(child.stdout.fileno(), _PIECE)
                if not piece:
                    raise EOFError
                self._rest += piece
                if len(self._rest) > MAX_RESPONSE_BYTES:
                    raise ValueError("too long")
        line, _, self._rest = self._rest.partition(b"\n")
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError("no object")  # noqa: TRY004  (of the line, not of a type)
        return said

    def _start(self) -> subprocess.Popen[bytes]:
        source = str(Path(version.__file__).parents[1])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._rest = b""
        self._words.seek(0)
        self._words.truncate()
        try:
            self._child = subprocess.Popen(  # noqa: S603  (our own interpreter)
                [sys.executable, *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                start_new_session=True,
                env={**os.environ, **single, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise DataError(f"the checking process cannot be started ({error})") from None
        return self._child

    def _died(self) -> FileFault:
        """Why, as far as the system and the child's last words tell."""
        status = self._end()
        self._words.seek(0)
        words = self._words.read(_PIECE).decode("utf-8", "replace").strip()
        if status == -signal.SIGXCPU:
            return FileFault("FILE-TIME", f"over {CPU_SECONDS} s of computing")
        if "MemoryError" in words or status == -signal.SIGKILL:
            return FileFault("FILE-MEMORY", f"over {MEMORY >> 20} MiB")
        last = words.splitlines()[-1] if words else f"status {status}"
        return FileFault("FILE-CRASH", last)

    def _end(self) -> int:
        """Close the child's input, wait a moment, and end it if it goes on; its status."""
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


def _without(job: ReadRequest, where: str) -> ReadRequest:
    """The job less one file, given by its sequence or its mask's name."""
    return ReadRequest(
        {s: p for s, p in job.images.items() if s != where},
        {n: p for n, p in job.masks.items() if n != where},
        job.picture,
    )
