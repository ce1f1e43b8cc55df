"""Whether an audit log is as it was written, alone and beside what the other side noted of it.

Nothing here is a secret, so whoever may write the log's folder can write a new log that is sound
in itself. What they cannot change is the other side's log, which holds the heads it was told:
`verify_lines` with `read_anchors` finds such a log.
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
    """line: the first that is not as it was written, from 1. text: what is wrong with it."""

    line: int
    kind: Kind
    text: str


@dataclass(frozen=True)
class LogVerdict:
    """What became of a log. head: of the last line that is sound. fault: None where all are.

    torn: bytes after the last whole line; a writer killed there leaves some, and the next writer
    moves them aside. anchors: heads noted by the other side that were found in the log.
    """

    head: LogHead
    fault: LogFault | None = None
    torn: int = 0
    anchors: int = 0

    @property
    def sound(self) -> bool:
        """Whether every line is as it was written."""
        return self.fault is None


class _LogFaultError(Exception):  # (ends the reading, and never leaves this module)
    def __init__(self, line: int, kind: Kind, text: str) -> None:
        super().__init__(text)
        self.fault = LogFault(line, kind, text)


def verify_log(log: Path, against: Path | None = None, site: str = "") -> LogVerdict:
    """Check that an audit log is as it was written.

    against, site: another side's log, and the name under which it noted this one's heads. Raises
    AuditError where either cannot be read.
    """
    return verify_lines(log, None if against is None else read_anchors(against, site))


def verify_lines(path: Path, anchors: Iterable[LogHead] | None = None) -> LogVerdict:
    """Read the log from its first line to its last, while others may go on writing it.

    anchors: what `read_anchors` found in the other side's log. A log without a head file, as one
    that was sent, is only sound as far as the last of `anchors`, and needs some. Raises AuditError
    where there is neither log nor head.
    """
    head, size = _snapshot(path)
    reader = _LogReader()
    try:
        told = _told(anchors or ())
        reader.marks = ({head.number: head.hash} if head else {}) | told
        if size:
            with path.open("rb") as file:
                reader.read(file, size)
        reader.check_end(head, told)
    except _LogFaultError as found:
        return LogVerdict(reader.last, found.fault, reader.torn)
    return LogVerdict(reader.last, None, reader.torn, len(told))


def _told(anchors: Iterable[LogHead]) -> dict[int, str]:
    told: dict[int, str] = {}
    for anchor in anchors:
        if told.setdefault(anchor.number, anchor.hash) != anchor.hash:
            raise _LogFaultError(
                anchor.number, "edited", "the other side was told of two such lines"
            )
    return told


def read_anchors(log: Path, site: str) -> tuple[LogHead, ...]:
    """What `log` says it was told of the heads of `site`.

    Raises AuditError: no such log, it is not sound itself, or it never heard of `site`.
    """
    found = [
        LogHead(number, digest)
        for line in read_log(log)
        if line.event == "head-noted" and line.fields.get("site") == site
        if isinstance(number := line.fields.get("number"), int)
        and isinstance(digest := line.fields.get("head"), str)
    ]
    if not found:
        raise AuditError(f"{log}: no head of {site} was ever noted there; see the name of the site")
    return tuple(found)


def read_log(log: Path) -> Iterator[LogLine]:
    """Every line of a log, in order. Raises AuditError at the first that is not sound."""
    _, size = _snapshot(log)
    if not size:
        return
    reader = _LogReader()
    with log.open("rb") as file:
        try:
            yield from reader.lines(file, size)
        except _LogFaultError as found:
            raise AuditError(
                f"{log}: line {found.fault.line}: {found.fault.kind}: {found.fault.text}"
            ) from None


def _snapshot(path: Path) -> tuple[LogHead | None, int]:
    """Head and bytes of the log at one moment."""
    lock = lock_path(path)
    if lock.exists():
        try:
            with FileLock(lock, timeout=60, poll_interval=0.005):
                return _look(path)
        except OSError:  # a folder that may only be read: nobody here writes to it
            pass
    return _look(path)


def _look(path: Path) -> tuple[LogHead | None, int]:
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
    """Goes through lines, and remembers the last one that followed. marks: number to known hash."""

    def __init__(self) -> None:
        self.last = LogHead()
        self.torn = 0
        self.marks: Mapping[int, str] = {}
        self._before: LogLine | None = None

    def read(self, file: BinaryIO, size: int) -> None:
        for _ in self.lines(file, size):
            pass

    def lines(self, file: BinaryIO, size: int) -> Iterator[LogLine]:
        """The lines in the first `size` bytes. Raises _Found at the first that is not sound."""
        for data in _pieces(file, size):
            number = self.last.number + 1
            if not data.endswith(b"\n"):
                if len(data) > LONGEST:
                    raise _LogFaultError(
                        number, "not JSON", "it is longer than any line gliofed writes"
                    )
                self.torn = len(data)
                return
            try:
                line = decode(data)
            except BadLineError as fault:
                raise _LogFaultError(number, fault.kind, str(fault)) from None
            if (line.n, line.prev) != (number, self.last.hash):
                raise self._disorder(line, [_loosely(d) for d in _pieces(file, size)])
            if self.marks.get(line.n, line.hash) != line.hash:
                raise _LogFaultError(
                    number, "edited", "it was noted with another hash when it was written"
                )
            self.last = LogHead(line.n, line.hash, self.last.size + len(data))
            self._before = line
            yield line

    def _disorder(self, line: LogLine, rest: list[LogLine | None]) -> _LogFaultError:
        """A line that is sound in itself and does not follow the one before."""
        here, wanted = self.last.number + 1, self.last
        later = {r.n for r in rest if r}
        following = rest[0] if rest else None
        genuine = following is not None and following.prev == line.hash
        if line.n > here:
            if here not in later:
                return _LogFaultError(here, "dropped", f"lines {here} to {line.n - 1} are missing")
            kind: Kind = "inserted" if line.n in later else "reordered"
            return _LogFaultError(here, kind, f"line {line.n} stands in the place of line {here}")
        if line.n < here:
            twin = self._before is not None and (self._before.n, self._before.prev) == (
                line.n,
                line.prev,
            )
            place = here - 1 if twin and genuine else here
            return _LogFaultError(place, "inserted", f"there are two lines {line.n}")
        if following is not None and (following.n, following.prev) == (here, wanted.hash):
            return _LogFaultError(
                here, "inserted", f"there are two lines {here}, and one follows nothing"
            )
        known = self.marks.get(here) == line.hash
        place = here - 1 if here > 1 and (genuine or known) else here
        return _LogFaultError(
            place, "edited", f"line {here} was written after another line {here - 1}"
        )

    def check_end(self, head: LogHead | None, told: Mapping[int, str]) -> None:
        """Raise _Found where lines are missing at the end, or nobody can say."""
        last = self.last.number
        if head is not None and told.get(head.number, head.hash) != head.hash:
            raise _LogFaultError(head.number, "no head", "its .head file is that of another log")
        furthest = max([*told, head.number if head else 0], default=0)
        if furthest > last:
            raise _LogFaultError(last + 1, "cut off", f"lines {last + 1} to {furthest} are missing")
        if head is not None and last > head.number + 1:
            raise _LogFaultError(head.number + 2, "inserted", "it was appended without a new head")
        if head is None and not told and last > 1:
            raise _LogFaultError(
                last, "no head", "without its .head file nobody can tell what followed it"
            )


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """From where the file stands: its lines, up to `size` bytes of it."""
    while (left := size - file.tell()) > 0:
        yield file.readline(min(left, LONGEST + 1))


def _loosely(data: bytes) -> LogLine | None:
    try:
        return decode(data)
    except BadLineError:
        return None
