"""Verification of an audit log, alone or against the heads in the log of another party.

A log contains no secret. Whoever can write to its folder can therefore write a new, consistent log.
They cannot change the log of the other party, which has the heads received from this one:
`verify_lines` with `read_anchors` detects such a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from filelock import FileLock

from gliofed.errors import AuditError
from gliofed.federated.governance.hash_chain import (
    LONGEST,
    BadLineError,
    LogHead,
    LogLine,
    decode,
    lock_path,
    read_head,
)

Kind = Literal["not JSON", "edited", "dropped", "inserted", "reordered", "cut off", "no head"]


@dataclass(frozen=True)
class LogFault:
    """line: the first that was changed, from 1. text: what is wrong with it."""

    line: int
    kind: Kind
    text: str


@dataclass(frozen=True)
class LogVerdict:
    """The result of a verification. head: of the last valid line. fault: None if all are valid.

    torn: bytes after the last complete line, left by a killed writer; the next writer removes them.
    anchors: number of heads in the other party's log that agree with this log.
    """

    head: LogHead
    fault: LogFault | None = None
    torn: int = 0
    anchors: int = 0

    @property
    def sound(self) -> bool:
        """Whether every line is unchanged."""
        return self.fault is None


class _LogFaultError(Exception):  # (ends the reading; does not leave this module)
    def __init__(self, line: int, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.fault = LogFault(line, kind, text)


def verify_log(log: Path, against: Path | None = None, site: str = "") -> LogVerdict:
    """Check that an audit log is unchanged.

    against, site: the log of another party, and this party's name in it. Raises AuditError where
    either log cannot be read.
    """
    return verify_lines(log, None if against is None else read_anchors(against, site))


def verify_lines(path: Path, anchors: Iterable[LogHead] | None = None) -> LogVerdict:
    """Check every line of a log. Other processes may write to it meanwhile.

    anchors: heads from the other party's log (`read_anchors`). A log without a head file, such as a
    copy, is checked only up to the last of `anchors`, and needs at least one. Raises AuditError
    where there is neither log nor head.
    """
    head, size = _snapshot(path)
    reader = _LogReader()
    try:
        hashes = _hash_by_number(anchors or ())
        reader.marks = ({head.number: head.hash} if head else {}) | hashes
        if size:
            with path.open("rb") as file:
                reader.read(file, size)
        reader.check_end(head, hashes)
    except _LogFaultError as error:
        return LogVerdict(reader.last, error.fault, reader.torn)
    return LogVerdict(reader.last, None, reader.torn, len(hashes))


def _hash_by_number(anchors: Iterable[LogHead]) -> dict[int, str]:
    hashes: dict[int, str] = {}
    for anchor in anchors:
        if hashes.setdefault(anchor.number, anchor.hash) != anchor.hash:
            raise _LogFaultError(
                anchor.number, "edited", "the other log has two hashes of this line"
            )
    return hashes


def read_anchors(log: Path, site: str) -> tuple[LogHead, ...]:
    """The heads of `site` that are recorded in `log`.

    Raises AuditError: no such log, a changed log, or no head of `site` in it.
    """
    heads = [
        LogHead(number, digest)
        for line in read_log(log)
        if line.event == "head-noted" and line.fields.get("site") == site
        if isinstance(number := line.fields.get("number"), int)
        and isinstance(digest := line.fields.get("head"), str)
    ]
    if not heads:
        raise AuditError(f"{log}: contains no head of {site}; check the name of the site")
    return tuple(heads)


def read_log(log: Path) -> Iterator[LogLine]:
    """Every line of a log, in order. Raises AuditError at the first that was changed."""
    _, size = _snapshot(log)
    if not size:
        return
    reader = _LogReader()
    with log.open("rb") as file:
        try:
            yield from reader.lines(file, size)
        except _LogFaultError as error:
            fault = error.fault
            raise AuditError(f"{log}: line {fault.line}: {fault.kind}: {fault.text}") from None


def _snapshot(path: Path) -> tuple[LogHead | None, int]:
    """Head and bytes of the log at one moment."""
    lock = lock_path(path)
    if lock.exists():
        try:
            with FileLock(lock, timeout=60, poll_interval=0.005):
                return _head_and_size(path)
        except OSError:  # a read-only folder: no process here writes to it
            pass
    return _head_and_size(path)


def _head_and_size(path: Path) -> tuple[LogHead | None, int]:
    try:
        head = read_head(path)
        size = path.stat().st_size
    except FileNotFoundError:
        if head is None:
            raise AuditError(f"{path}: no such audit log") from None
        size = 0
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror})") from None
    return head, size


class _LogReader:
    """Reads lines and keeps the last valid one. marks: line number to known hash."""

    def __init__(self) -> None:
        self.last = LogHead()
        self.torn = 0
        self.marks: Mapping[int, str] = {}
        self._before: LogLine | None = None

    def read(self, file: BinaryIO, size: int) -> None:
        for _ in self.lines(file, size):
            pass

    def lines(self, file: BinaryIO, size: int) -> Iterator[LogLine]:
        """The lines in the first `size` bytes. Raises _LogFaultError at the first fault."""
        for data in _pieces(file, size):
            number = self.last.number + 1
            if not data.endswith(b"\n"):
                if len(data) > LONGEST:
                    raise _LogFaultError(
                        number, "not JSON", "it is longer than a line of an audit log can be"
                    )
                self.torn = len(data)
                return
            try:
                line = decode(data)
            except BadLineError as fault:
                raise _LogFaultError(number, fault.kind, str(fault)) from None
            if (line.n, line.prev) != (number, self.last.hash):
                raise self._disorder(line, [_decode_or_none(d) for d in _pieces(file, size)])
            if self.marks.get(line.n, line.hash) != line.hash:
                raise _LogFaultError(
                    number, "edited", "another hash was recorded when it was written"
                )
            self.last = LogHead(line.n, line.hash, self.last.size + len(data))
            self._before = line
            yield line

    def _disorder(self, line: LogLine, rest: list[LogLine | None]) -> _LogFaultError:
        """The fault of a valid line that does not follow the one before."""
        here, last = self.last.number + 1, self.last
        later = {r.n for r in rest if r}
        following = rest[0] if rest else None
        genuine = following is not None and following.prev == line.hash
        if line.n > here:
            if here not in later:
                return _LogFaultError(here, "dropped", f"lines {here} to {line.n - 1} are missing")
            kind: Kind = "inserted" if line.n in later else "reordered"
            return _LogFaultError(here, kind, f"line {line.n} is in the place of line {here}")
        if line.n < here:
            twin = self._before is not None and (self._before.n, self._before.prev) == (
                line.n,
                line.prev,
            )
            place = here - 1 if twin and genuine else here
            return _LogFaultError(place, "inserted", f"there are two lines {line.n}")
        if following is not None and (following.n, following.prev) == (here, last.hash):
            return _LogFaultError(
                here,
                "inserted",
                f"one of two lines {here} does not follow line {here - 1}",
            )
        known = self.marks.get(here) == line.hash
        place = here - 1 if here > 1 and (genuine or known) else here
        return _LogFaultError(
            place, "edited", f"line {here} was written after another line {here - 1}"
        )

    def check_end(self, head: LogHead | None, hashes: Mapping[int, str]) -> None:
        """Raise _LogFaultError where lines are missing at the end, or this cannot be checked."""
        last = self.last.number
        if head is not None and hashes.get(head.number, head.hash) != head.hash:
            raise _LogFaultError(head.number, "no head", "its .head file belongs to another log")
        furthest = max([*hashes, head.number if head else 0], default=0)
        if furthest > last:
            raise _LogFaultError(last + 1, "cut off", f"lines {last + 1} to {furthest} are missing")
        if head is not None and last > head.number + 1:
            raise _LogFaultError(head.number + 2, "inserted", "it was appended without a new head")
        if head is None and not hashes and last > 1:
            raise _LogFaultError(
                last, "no head", "without its .head file missing lines cannot be detected"
            )


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The lines from the present position of the file, within its first `size` bytes."""
    while (left := size - file.tell()) > 0:
        yield file.readline(min(left, LONGEST + 1))


def _decode_or_none(data: bytes) -> LogLine | None:
    try:
        return decode(data)
    except BadLineError:
        return None
