"""Kinds of values that a note may have, each checked by itself: type, range, names and length.

`check` raises UpdateError, which names the field, repeats at most some characters of what was sent
and says what was expected. It takes time in proportion to the bounds, whatever was sent. `text` is
the documentation's.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gliofed.errors import UpdateError


class Kind(Protocol):
    """One kind of value."""

    @property
    def text(self) -> str:
        """What is allowed, in some words."""
        ...

    def check(self, value: object, name: str) -> None:
        """Raise UpdateError where `value` of the field `name` is not allowed."""
        ...


@dataclass(frozen=True)
class Whole:
    """An integer from `low` to `high`; True and 1.0 are none."""

    low: int
    high: int

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"an integer from {self.low:,} to {self.high:,}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not int or not self.low <= value <= self.high:
            raise _refused(name, value, self)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`. NaN is none; an integer beyond the floats is out of range."""

    low: float
    high: float

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"a number from {self.low:g} to {self.high:g}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) not in (int, float) or not self.low <= value <= self.high:  # type: ignore[operator]
            raise _refused(name, value, self)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return "true or false"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not bool:
            raise _refused(name, value, self)


@dataclass(frozen=True)
class Text:
    """Text of at most `longest` characters."""

    longest: int

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"text of at most {self.longest} characters"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not str or len(value) > self.longest:
            raise _refused(name, value, self)


@dataclass(frozen=True)
class Choice:
    """One of `names`."""

    names: tuple[str, ...]

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"one of {', '.join(self.names)}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not str or value not in self.names:
            raise _refused(name, value, self)


@dataclass(frozen=True)
class OrNull:
    """A value of the kind, or null."""

    kind: Kind

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"null or {self.kind.text}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if value is not None:
            self.kind.check(value, name)


@dataclass(frozen=True)
class Items:
    """A list of `fewest` to `most` values of one kind."""

    kind: Kind
    fewest: int
    most: int

    @property
    def text(self) -> str:
        """As of `Kind`."""
        many = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most:,}"
        return f"a list of {many}, each {self.kind.text}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not list or not self.fewest <= len(value) <= self.most:
            raise _refused(name, value, self)
        for i, item in enumerate(value):
            self.kind.check(item, f"{name}.{i}")


@dataclass(frozen=True)
class Row:
    """A list with one value of each kind, in this order."""

    kinds: tuple[Kind, ...]

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return f"a list of {', then '.join(kind.text for kind in self.kinds)}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        if type(value) is not list or len(value) != len(self.kinds):
            raise _refused(name, value, self)
        for i, (kind, item) in enumerate(zip(self.kinds, value, strict=True)):
            kind.check(item, f"{name}.{i}")


@dataclass(frozen=True)
class ByName:
    """A mapping from names to values of one kind. every: whether each of `names` is needed."""

    names: tuple[str, ...]
    kind: Kind
    every: bool = False

    @property
    def text(self) -> str:
        """As of `Kind`."""
        which = "each of" if self.every else "some of"
        return f"for {which} {', '.join(self.names)}: {self.kind.text}"

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        sent = _mapping(value, name, self)
        _check_names(sent, self.names, self.names if self.every else (), name)
        for key, item in sent.items():
            self.kind.check(item, f"{name}.{key}")


@dataclass(frozen=True)
class FreeNames:
    """A mapping from at most `most` names of at most `longest` characters to values of one kind."""

    kind: Kind
    most: int
    longest: int

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return (
            f"for at most {self.most} names of at most {self.longest} characters: {self.kind.text}"
        )

    def check(self, value: object, name: str) -> None:
        """As of `Kind`."""
        sent = _mapping(value, name, self)
        if len(sent) > self.most or any(len(key) > self.longest for key in sent):
            raise _refused(name, value, self)
        for key, item in sent.items():
            self.kind.check(item, f"{name}.{key}")


@dataclass(frozen=True)
class Record:
    """A mapping with exactly these fields, each of its own kind."""

    fields: Mapping[str, Kind]

    @property
    def text(self) -> str:
        """As of `Kind`."""
        return "; ".join(f"`{name}`: {kind.text}" for name, kind in self.fields.items())

    def check(self, value: object, name: str = "") -> None:
        """As of `Kind`. name: empty for the whole note."""
        sent = _mapping(value, name, self)
        _check_names(sent, tuple(self.fields), tuple(self.fields), name)
        for key, kind in self.fields.items():
            kind.check(sent[key], f"{name}.{key}" if name else key)


def shown(value: object) -> str:
    """At most some dozen characters of a value that another party sent."""
    return reprlib.repr(value)


def _mapping(value: object, name: str, kind: Kind) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _refused(name, value, kind)
    return value


def _check_names(
    sent: Mapping[str, object], allowed: Sequence[str], needed: Sequence[str], name: str
) -> None:
    """Raise UpdateError for a name too many, or one that is missing."""
    where = f"its field {name}" if name else "its note"
    more = next((key for key in sent if key not in allowed), None)
    if more is not None:
        raise UpdateError(
            f"{where} has {shown(more)}, expected only {', '.join(allowed) or 'none'}"
        )
    missing = [key for key in needed if key not in sent]
    if missing:
        raise UpdateError(f"{where} lacks {', '.join(missing)}")


def _refused(name: str, value: object, kind: Kind) -> UpdateError:
    return UpdateError(f"its field {name or 'note'} is {shown(value)}, expected {kind.text}")
