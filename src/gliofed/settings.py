"""Settings: from a TOML file to a frozen dataclass, and back.

An unknown key is an error that names the nearest valid key; a value of the wrong type is an error
that names the expected type.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gliofed.errors import StudyError
from gliofed.markers import BY_ID, MARKERS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SettingsT = TypeVar("SettingsT", bound="DataclassInstance")


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """The plain values of a TOML file. kind: what the file is, for an error message.

    Raises StudyError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such {kind} file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from None


def toml_of(plain: Mapping[str, Any]) -> str:
    """Values and tables as TOML; None values are left out."""
    tables = {k: v for k, v in plain.items() if isinstance(v, dict)}
    values = {k: v for k, v in plain.items() if k not in tables and v is not None}
    lines = [f"{k} = {_toml(v)}" for k, v in values.items()]
    for name, table in tables.items():
        given = {k: v for k, v in table.items() if v is not None}
        lines += ["", f"[{name}]", *(f"{k} = {_toml(v)}" for k, v in given.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    text = json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # which JSON permits and TOML does not


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def build(kind: type[SettingsT], raw: object, where: str) -> SettingsT:
    """Fill the dataclass `kind` from a TOML table; nothing is checked but keys and their kinds.

    Raises StudyError, opening with `where`: an unknown key (with the nearest valid one), a missing
    key, or a value of another kind than the annotation.
    """
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table, found {raw!r}")
    hints = typing.get_type_hints(kind)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown key {key!r}; the nearest valid key is {near!r}")
    for item in dataclasses.fields(kind):
        needed = item.default is item.default_factory is dataclasses.MISSING
        if needed and item.name not in raw:
            raise StudyError(f"{where}: missing key {item.name!r}")
    values = {k: _value(hints[k], v, f"{where}: {k}") for k, v in raw.items()}
    return kind(**values)


def _value(kind: Any, raw: object, where: str) -> Any:  # noqa: PLR0911  (one return a kind)
    """One setting, checked against its annotation; lists become tuples, ints serve as floats."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return build(kind, raw, where)
    if origin is tuple:
        return _tuple(args, raw, where)
    if origin in (typing.Union, types.UnionType):
        return _union(args, raw, where)
    if origin is typing.Literal:
        if raw in args:
            return raw
        raise StudyError(f"{where}: expected one of {list(args)}, found {raw!r}")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _texts(raw, where) if args[1] is str else _weights(raw, where)
    if kind is Path and isinstance(raw, str):
        return Path(raw)
    if kind is float and type(raw) is int:
        return float(raw)
    if type(raw) is kind:
        return raw
    raise StudyError(f"{where}: expected {getattr(kind, '__name__', kind)}, found {raw!r}")


def _tuple(args: tuple[Any, ...], raw: object, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, list | tuple):
        raise StudyError(f"{where}: expected a list, found {raw!r}")
    if args[-1] is not Ellipsis and len(raw) != len(args):
        raise StudyError(f"{where}: expected {len(args)} values, found {len(raw)}")
    kinds = [args[0]] * len(raw) if args[-1] is Ellipsis else args
    return tuple(_value(k, v, where) for k, v in zip(kinds, raw, strict=True))


def _union(args: tuple[Any, ...], raw: object, where: str) -> Any:
    options = [a for a in args if a is not types.NoneType]
    if raw is None and len(options) < len(args):  # JSON has it, TOML has not
        return None
    for option in options:
        try:
            return _value(option, raw, where)
        except StudyError:
            if len(options) == 1:
                raise
    raise StudyError(f'{where}: expected a number or "native", found {raw!r}')


def _texts(raw: object, where: str) -> Mapping[str, str]:
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table of names, found {raw!r}")
    return {str(k): str(_value(str, v, f"{where}: {k}")) for k, v in raw.items()}


def _weights(raw: object, where: str) -> Mapping[str, float]:
    """Marker weights; a marker that is not named has the weight of its row in the marker table."""
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table of marker weights, found {raw!r}")
    for key, value in raw.items():
        if key not in BY_ID:
            near = difflib.get_close_matches(key, BY_ID, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown marker {key!r}; the nearest one is {near!r}")
        if type(value) not in (int, float) or value < 0:
            raise StudyError(f"{where}.{key}: expected a number of at least 0, found {value!r}")
    return {m.id: float(raw.get(m.id, m.task_weight)) for m in MARKERS}
