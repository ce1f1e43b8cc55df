"""The audit log of one party: one line an event, each with the hash of the line before.

    log = AuditLog(kit / "gliofed/audit.jsonl", "harbour")
    log.write("update-accepted", site="north", round=3, bytes=1_204_112)

Several processes may write one log. A line is on the disk when `write` returns. A process killed
while it writes leaves a torn end, which the next writer moves to a file and records. Changes are
detected by `gliofed.federated.governance.audit_verification.verify_lines`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from gliofed.errors import AuditError, UnwritableError
from gliofed.federated.governance.hash_chain import (
    LONGEST,
    BadLineError,
    Event,
    LogHead,
    Value,
    check_name,
    decode,
    encode,
    head_path,
    line_bytes,
    lock_path,
    read_head,
)
from gliofed.runtime.files import keep_folder, write_bytes, write_private

LOCK_SECONDS: Final = 60.0
"""Seconds to wait for other writers of the same log."""


def count_fields(cases: int, smallest: int) -> dict[str, Value]:
    """The field of a count; of one from 1 to below `smallest` only the reason why it is missing.

    >>> count_fields(0, 5), count_fields(4, 5), count_fields(5, 5)
    ({'cases': 0}, {'reason': 'small-count'}, {'cases': 5})
    """
    return {"reason": "small-count"} if 0 < cases < smallest else {"cases": cases}


@dataclass(frozen=True)
class AuditLog:
    """The log in `path`, made with its first line. who: the writer's name in the federation."""

    path: Path
    who: str

    def __post_init__(self) -> None:
        check_name(self.who)

    def write(self, event: Event, **fields: Value) -> LogHead:
        """Append one line and return the new head.

        fields: of `gliofed.federated.governance.hash_chain.FIELDS`. Raises AuditError: an unknown
        event or field, or a log that was changed; UnwritableError: no space, no permission, or
        locked by another process. The log is then unchanged.
        """
        encode(LogHead(), "", self.who, event, fields)  # checks before the log is opened
        with self._locked() as file:
            return self._append(file, self._repaired_head(file), event, fields)

    def head(self) -> LogHead:
        """Number and hash of the last line, to be sent to other parties. Raises as `write` does."""
        with self._locked() as file:
            return self._repaired_head(file)

    def note(self, site: str, head: LogHead) -> LogHead:
        """Record the head of another party's log, so that a rewritten log is detected."""
        return self.write("head-noted", site=site, number=head.number, head=head.hash)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The log's file, locked for this process."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(lock_path(self.path), LOCK_SECONDS, mode=0o600, poll_interval=0.005)
            with lock:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    yield file
                finally:
                    os.close(file)
        except Timeout:
            raise UnwritableError(
                f"{self.path}: another process has locked this audit log for {LOCK_SECONDS:.0f} s; "
                "end it, then start again"
            ) from None
        except OSError as error:
            raise UnwritableError(
                f"{self.path}: cannot be written to ({error.strerror or error}), and gliofed does "
                "not run without an audit log: free disk space or correct the folder's permissions"
            ) from None

    def _repaired_head(self, file: int) -> LogHead:
        """The head; what a killed process left is repaired and recorded first."""
        head_lost = not head_path(self.path).exists()
        head = self._checked_head(file)
        if head_lost and head.number > 1:  # with one line, its writer may have been killed
            return self._append(file, head, "log-mended", {"reason": "head-missing"})
        return head

    def _checked_head(self, file: int) -> LogHead:
        head = read_head(self.path)
        if head is None:
            head = _last_valid_head(file)
            self._write_head(head)
        end = os.fstat(file).st_size
        if head.size == end:
            return head
        if head.size > end:
            raise self._changed(f"ends before its line {head.number} does, which had been written")
        tail = _read(file, head.size, LONGEST + 1)
        if b"\n" in tail[:-1] or len(tail) > LONGEST:
            raise self._changed(f"has data after line {head.number} that gliofed did not write")
        next_head = _next_head(head, tail)
        if next_head is None:
            return self._remove_torn_end(file, head, tail)
        self._write_head(next_head)
        return next_head

    def _remove_torn_end(self, file: int, head: LogHead, torn: bytes) -> LogHead:
        """Move the bytes after the head to a file of their own, and record it in the log."""
        names = (f"{self.path.name}.torn-{n}" for n in itertools.count(1))
        torn_file = next(p for p in map(self.path.with_name, names) if not p.exists())
        write_bytes(torn_file, torn, private=True)
        os.ftruncate(file, head.size)
        fields: dict[str, Value] = {"reason": "torn-end", "bytes": len(torn)}
        return self._append(file, head, "log-mended", fields)

    def _append(self, file: int, head: LogHead, event: Event, fields: dict[str, Value]) -> LogHead:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = encode(head, now, self.who, event, fields)
        data = line_bytes(line)
        after = LogHead(line.n, line.hash, head.size + len(data))
        try:
            _write(file, head.size, data)
            os.fsync(file)
            self._write_head(after)
        except BaseException:
            if read_head(self.path) != after:
                os.ftruncate(file, head.size)
            raise
        return after

    def _write_head(self, head: LogHead) -> None:
        write_private(head_path(self.path), json.dumps(asdict(head)) + "\n")
        keep_folder(self.path.parent)

    def _changed(self, what: str) -> AuditError:
        return AuditError(
            f"{self.path}: {what}; run gliofed audit verify, then move the log and its .head file "
            "together to another folder and keep them: the next start begins a new log"
        )


def _last_valid_head(file: int) -> LogHead:
    """The head of a log without a head file: the last of the lines that follow each other."""
    head = LogHead()
    with os.fdopen(os.dup(file), "rb") as lines:
        lines.seek(0)
        for data in iter(lambda: lines.readline(LONGEST + 1), b""):
            next_head = _next_head(head, data)
            if next_head is None:
                break
            head = next_head
    return head


def _next_head(head: LogHead, data: bytes) -> LogHead | None:
    """The head after the line in `data`; None where it is incomplete or not the next line."""
    if not data.endswith(b"\n"):
        return None
    try:
        line = decode(data)
    except BadLineError:
        return None
    if (line.n, line.prev) != (head.number + 1, head.hash):
        return None
    return LogHead(line.n, line.hash, head.size + len(data))


def _read(file: int, start: int, size: int) -> bytes:
    with os.fdopen(os.dup(file), "rb") as stream:
        stream.seek(start)
        return stream.read(size)


def _write(file: int, start: int, data: bytes) -> None:
    os.lseek(file, start, os.SEEK_SET)
    while data:
        data = data[os.write(file, data) :]
