"""The lines of an audit log: their fields, and the hash that binds each to the one before.

A line is one JSON object in canonical form (keys sorted, no spaces, ASCII): `n` counts lines from
1, `at` is the time (UTC), `who` wrote it, `event` is one of `EVENTS`, then fields of `FIELDS`;
`prev` is the hash of the line before and `hash` the SHA-256 of the line without it (as in Haber
and Stornetta 1991, J. Cryptology 3:99, each entry confirms all before it). Next to the log,
`<name>.head` has number and hash of the last line, so that lines missing at the end are detected.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from gliofed.errors import AuditError
from gliofed.markers import BY_ID

Event = Literal[
    "started",
    "stopped",
    "joined",
    "withdrawn",
    "site-joined",
    "site-missing",
    "site-withdrawn",
    "site-readmitted",
    "site-failed",
    "connection-refused",
    "command-refused",
    "job-refused",
    "proposed",
    "approved",
    "approval-refused",
    "policy-refused",
    "run-continued",
    "test-repeated",
    "job-started",
    "job-ended",
    "job-failed",
    "request-received",
    "request-refused",
    "response-sent",
    "response-refused",
    "patients-compared",
    "counts-accepted",
    "counts-refused",
    "update-accepted",
    "update-refused",
    "update-bounded",
    "site-left-out",
    "marker-not-trained",
    "round-committed",
    "quorum-missed",
    "failure-reported",
    "model-written",
    "model-published",
    "model-sent",
    "model-received",
    "head-noted",
    "log-mended",
]
EVENTS: Final[frozenset[str]] = frozenset(get_args(Event))

Value = str | int | float | bool
START: Final = "0" * 64
"""The previous hash in the first line."""
LONGEST: Final = 4096
"""Bytes of the longest line."""
_OWN: Final = ("n", "at", "who", "event", "prev", "hash")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CODE: Final = re.compile(r"[a-z]+(?:-[a-z]+){0,5}")
_HEX: Final = re.compile(r"[0-9a-f]{8,64}")
_KIND: Final = re.compile(r"[A-Z][A-Za-z]{1,39}")
_VERSION: Final = re.compile(r"\d{1,4}(?:\.\d{1,4}){1,3}[A-Za-z0-9.+]{0,20}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def _text(form: re.Pattern[str], longest: int = 64) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        return isinstance(value, str) and len(value) <= longest and bool(form.fullmatch(value))

    return fits


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < 2**53  # False for NaN


FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    "site": _text(_NAME),  # the site concerned, by its name in the federation
    "run": _text(_HEX),
    "continues": _text(_HEX),  # a finished run, whose last round this one begins with
    "round": _count,
    "rounds": _count,
    "study": _text(_HEX),  # digests
    "policy": _text(_HEX),
    "update": _text(_HEX),
    "model": _text(_HEX),
    "nonce": _text(_HEX),
    "approver": _text(_HEX),
    "report": _text(_HEX),  # id of a report that stays at its site
    "stage": _text(_CODE),
    "reason": _text(_CODE),
    "marker": lambda value: value in BY_ID,
    "kind": _text(_KIND),  # class of an error
    "version": _text(_VERSION),
    "signed": lambda value: type(value) is bool,
    "cases": _count,
    "sites": _count,
    "missing": _count,
    "bytes": _count,
    "seconds": _number,
    "times": _count,  # repetitions of the event without a line of their own
    "number": _count,  # of another log's last line, and its hash
    "head": _text(_HEX),
}
"""The fields and the check of their values. None can hold a path, an id of a case or free text."""


@dataclass(frozen=True)
class LogHead:
    """The last line of a log: its number from 1, its hash, and bytes of the log up to its end.

    An empty log has number 0. The head of another party has no `size`.
    """

    number: int = 0
    hash: str = START
    size: int = 0


@dataclass(frozen=True)
class LogLine:
    """One line as read; its hash is correct."""

    n: int
    at: str
    who: str
    event: str
    prev: str
    hash: str
    fields: Mapping[str, Value]


class BadLineError(ValueError):
    """A line that was changed; `kind` is "not JSON" or "edited"."""

    def __init__(self, kind: Literal["not JSON", "edited"], text: str) -> None:
        super().__init__(text)
        self.kind: Literal["not JSON", "edited"] = kind


def check_name(who: str) -> str:
    """`who`, or AuditError: letters, digits, dot, dash and underscore, at most 64."""
    if not _text(_NAME)(who):
        raise AuditError(
            f"{who!r} is not a name for an audit log: expected letters, digits, '.', '-', '_'"
        )
    return who


def encode(head: LogHead, at: str, who: str, event: str, fields: Mapping[str, Value]) -> LogLine:
    """The line after `head`, with its hash. Raises AuditError for an unknown event or field.

    at: UTC, as in a log.
    """
    n, prev = head.number + 1, head.hash
    if event not in EVENTS:
        raise AuditError(f"{event!r} is not an event of an audit log")
    for name, value in fields.items():
        if name not in FIELDS or not FIELDS[name](value):
            raise AuditError(
                f"audit log: {event} cannot be written with {name} = {value!r}; fields are of "
                "gliofed.federated.governance.hash_chain.FIELDS, without paths, ids of cases or "
                "free text"
            )
    plain = {"n": n, "at": at, "who": check_name(who), "event": event, "prev": prev, **fields}
    return LogLine(n, at, who, event, prev, _digest(plain), dict(fields))


def line_bytes(line: LogLine) -> bytes:
    """The line as bytes of the log."""
    plain = asdict(line)
    return _canonical(plain.pop("fields") | plain) + b"\n"


def decode(data: bytes) -> LogLine:
    """One line of a log; its place is not checked. Raises BadLineError."""
    try:
        plain = json.loads(data)
        own = {name: plain[name] for name in _OWN}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadLineError("not JSON", "it is not a line of an audit log") from None
    fields = {k: v for k, v in plain.items() if k not in own}
    shapes = type(own["n"]) is int and all(type(own[k]) is str for k in _OWN[1:])
    flat = all(type(v) in (str, int, float, bool) for v in fields.values())
    if not shapes or not flat or not _TIME.fullmatch(own["at"]):
        raise BadLineError("not JSON", "its values are not those of an audit log")
    line = LogLine(**own, fields=fields)
    try:
        as_written = line_bytes(line).rstrip(b"\n")
    except ValueError:  # NaN
        raise BadLineError("not JSON", "it contains NaN or an infinite number") from None
    del plain["hash"]
    if _digest(plain) != line.hash or as_written != data.rstrip(b"\n"):
        raise BadLineError("edited", "its hash does not match its content")
    return line


def head_path(log: Path) -> Path:
    """The file with the head of `log`."""
    return log.with_name(f"{log.name}.head")


def lock_path(log: Path) -> Path:
    """The lock file for writers of `log`."""
    return log.with_name(f".{log.name}.lock")


def read_head(log: Path) -> LogHead | None:
    """The head next to `log`; None without a file. Raises AuditError: unreadable."""
    path = head_path(log)
    try:
        plain = json.loads(path.read_bytes())
        head = LogHead(plain["number"], plain["hash"], plain["size"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise AuditError(f"{path}: is not the head of an audit log") from None
    if not (_count(head.number) and _count(head.size) and _text(_HEX)(head.hash)):
        raise AuditError(f"{path}: is not the head of an audit log")
    return head


def parse_head(head: object) -> LogHead | None:
    """The head that another party sent; None where it is malformed."""
    if not isinstance(head, list | tuple) or len(head) != 2:
        return None
    number, digest = head
    return LogHead(number, digest) if _count(number) and _text(_HEX)(digest) else None


def _digest(plain: Mapping[str, object]) -> str:
    return hashlib.sha256(_canonical(plain)).hexdigest()


def _canonical(plain: Mapping[str, object]) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
