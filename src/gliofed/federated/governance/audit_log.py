"""An audit log: what one side of a federation did, line by line, each bound to the one before.

    log = AuditLog(kit / "gliofed/audit.jsonl", "harbour")
    log.write("update-accepted", site="north", round=3, bytes=1_204_112)

Several processes may write one log. A line is on the disk when `write` returns; a process killed
in the middle of one leaves a torn end, which the next writer moves aside and records. Changes are
found by `gliofed.federated.governance.audit_verification.verify_lines`.
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

PATIENCE: Final = 60.0
"""Seconds to wait for other writers of the same log."""


@dataclass(frozen=True)
class AuditLog:
    """The log in `path`, made at the first line; `who` writes, by its name in the federation."""

    path: Path
    who: str

    def __post_init__(self) -> None:
        check_name(self.who)

    def write(self, event: Event, **fields: Value) -> LogHead:
        """Append one line; the log's new head.

        fields: of `gliofed.federated.governance.hash_chain.FIELDS`. Raises AuditError: an unknown
        event or field, or a log that was changed; UnwritableError: no space, no permission, or
        held by another process. The log is then as it was.
        """
        encode(LogHead(), "", self.who, event, fields)  # checks before anything is touched
        with self._held() as file:
            return self._append(file, self._settled(file), event, fields)

    def head(self) -> LogHead:
        """Number and hash of the last line, for the other side to note. Raises as `write` does."""
        with self._held() as file:
            return self._settled(file)

    def note(self, site: str, head: LogHead) -> LogHead:
        """Write another side's head down, so that its log cannot be rewritten unseen."""
        return self.write("head-noted", site=site, number=head.number, head=head.hash)

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The log's file for this process alone."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(lock_path(self.path), PATIENCE, mode=0o600, poll_interval=0.005)
            with lock:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    yield file
                finally:
                    os.close(file)
        except Timeout:
            raise UnwritableError(
                f"{self.path}: another process has held this audit log for {PATIENCE:.0f} s; end "
                "it, then start again"
            ) from None
        except OSError as error:
            raise UnwritableError(
                f"{self.path}: cannot be written to ({error.strerror or error}); an audit log must "
                "be: make room on the disk, or see to the folder's rights"
            ) from None

    def _settled(self, file: int) -> LogHead:
        """The head, with what a killed process left put in order and recorded."""
        lost = not head_path(self.path).exists()
        head = self._ordered(file)
        if lost and head.number > 1:  # a first line may have been killed before it had a head
            return self._append(file, head, "log-mended", {"reason": "head-missing"})
        return head

    def _ordered(self, file: int) -> LogHead:
        head = read_head(self.path)
        if head is None:
            head = _last_whole(file)
            self._keep_head(head)
        end = os.fstat(file).st_size
        if head.size == end:
            return head
        if head.size > end:
            raise self._changed(f"ends before its line {head.number} does, which was written")
        tail = _read(file, head.size, LONGEST + 1)
        if b"\n" in tail[:-1] or len(tail) > LONGEST:
            raise self._changed(f"goes on after line {head.number} with what no gliofed wrote")
        following = _follows(head, tail)
        if following is None:
            return self._mended(file, head, tail)
        self._keep_head(following)
        return following

    def _mended(self, file: int, head: LogHead, torn: bytes) -> LogHead:
        """Move what stands after the head aside, and say so in the log."""
        names = (f"{self.path.name}.torn-{n}" for n in itertools.count(1))
        aside = next(p for p in map(self.path.with_name, names) if not p.exists())
        write_bytes(aside, torn, private=True)
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
            self._keep_head(after)
        except BaseException:
            if read_head(self.path) != after:
                os.ftruncate(file, head.size)
            raise
        return after

    def _keep_head(self, head: LogHead) -> None:
        write_private(head_path(self.path), json.dumps(asdict(head)) + "\n")
        keep_folder(self.path.parent)

    def _changed(self, what: str) -> AuditError:
        return AuditError(
            f"{self.path}: {what}; see gliofed audit verify, then move the log and its .head file "
            "elsewhere together and keep them: a new log begins with the next start"
        )


def _last_whole(file: int) -> LogHead:
    """The head of a log whose own was lost: the last line down to which all follow each other."""
    head = LogHead()
    with os.fdopen(os.dup(file), "rb") as lines:
        lines.seek(0)
        for data in iter(lambda: lines.readline(LONGEST + 1), b""):
            following = _follows(head, data)
            if following is None:
                break
            head = following
    return head


def _follows(head: LogHead, data: bytes) -> LogHead | None:
    """The head after the line in `data`; None where it is not whole or not the next one."""
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
    with os.fdopen(os.dup(file), "rb") as whole:
        whole.seek(start)
        return whole.read(size)


def _write(file: int, start: int, data: bytes) -> None:
    os.lseek(file, start, os.SEEK_SET)
    while data:
        data = data[os.write(file, data) :]
