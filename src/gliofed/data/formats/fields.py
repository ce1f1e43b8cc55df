"""Reads the columns of published tables: cell text to a marker's class, sex or age.

One `LabelField` a column. A cell with no defined meaning raises an error; it is never guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from gliofed.data.audit import MappedValue, count_values
from gliofed.errors import DataError
from gliofed.markers import ABSENT, BY_ID, MARKERS
from gliofed.tables import Table, TableRow, column, find_column
from gliofed.types import UNKNOWN, Labels, Person, Unknown

Parse = Callable[[str], str | Unknown]
Values = Mapping[str, str | Unknown]

A_NUMBER: Final = "(a number)"
MAX_AGE: Final = 120.0
_SEX: Final[Mapping[str, Literal["F", "M"]]] = {
    "f": "F",
    "female": "F",
    "woman": "F",
    "m": "M",
    "male": "M",
    "man": "M",
}


@dataclass(frozen=True)
class LabelField:
    """One column. target: a marker id, "sex", "age" or a field of the adapter's own.

    names: of the column, over versions. parse: cell to value; raises ValueError for
    text with no defined meaning. required: whether a table without it is refused.
    """

    target: str
    names: tuple[str, ...]
    parse: Parse
    required: bool = True


def code_parser(codes: Mapping[str, str | Unknown]) -> Parse:
    """A parser of lower-case text by `codes`; empty, n/a and similar cells are unknown."""

    def parse(text: str) -> str | Unknown:
        key = integer_text(text.strip().lower())
        if key in codes:
            return codes[key]
        if key in ABSENT:
            return UNKNOWN
        raise ValueError(f"none of {sorted(codes)} nor n/a")

    return parse


def marker_parser(name: str) -> Parse:
    """The parser of a marker's codes in BIDS tables."""
    return BY_ID[name].parse


def parse_sex(text: str) -> str | Unknown:
    """F or M; anything else is unknown."""
    return _SEX.get(text.strip().lower(), UNKNOWN)


def parse_age(text: str) -> str | Unknown:
    """Years as a number between 0 and 120, decimal point or comma; anything else is unknown."""
    years = parse_years(text)
    return UNKNOWN if isinstance(years, Unknown) else str(years)


def parse_years(text: str) -> float | Unknown:
    """As `parse_age`, as a number."""
    if re.fullmatch(r"\d{1,3}([.,]\d{1,20})?", text.strip(), re.ASCII) is None:
        return UNKNOWN
    years = float(text.strip().replace(",", "."))
    return years if years <= MAX_AGE else UNKNOWN


def integer_text(text: str) -> str:
    """An integer that a spreadsheet wrote as "1.0", as "1"."""
    return text.removesuffix(".0") if re.fullmatch(r"-?\d+\.0", text, re.ASCII) else text


def read_fields(
    table: Table, rows: Iterable[TableRow], fields: Iterable[LabelField]
) -> tuple[tuple[Values, ...], tuple[MappedValue, ...]]:
    """Each row's values by target, and the audit of every cell.

    Raises DataError: a required column is missing, or cells have no defined meaning (all spellings
    of one column in one message, with count and first line).
    """
    rows = tuple(rows)
    values: tuple[dict[str, str | Unknown], ...] = tuple({} for _ in rows)
    account: list[tuple[str, str, str, str | Unknown]] = []
    for item in fields:
        name = column(table, *item.names) if item.required else find_column(table, *item.names)
        if name is None:
            continue
        unreadable: Counter[str] = Counter()
        first: dict[str, str] = {}
        for row, row_values in zip(rows, values, strict=True):
            raw = row.cells[name]
            try:
                row_values[item.target] = value = item.parse(raw)
            except ValueError as error:
                unreadable[raw] += 1
                first.setdefault(raw, f"line {row.line}: {error}")
                continue
            number = item.target == "age" and not isinstance(value, Unknown)
            account.append(
                (name, A_NUMBER if number else raw, item.target, "years" if number else value)
            )
        if unreadable:
            each = "; ".join(f"{raw!r} in {n} rows, {first[raw]}" for raw, n in unreadable.items())
            raise DataError(
                f"{table.path}: column {name!r} holds text with no defined meaning: {each}; "
                "correct the cells, or write n/a"
            )
    return values, count_values(account)


def labels_of(values: Values) -> Labels:
    """The markers among a row's values."""
    return Labels({m.id: values.get(m.id, UNKNOWN) for m in MARKERS})


def person_of(values: Values, scanner: str | Unknown = UNKNOWN) -> Person:
    """Sex and age among a row's values."""
    sex = values.get("sex", UNKNOWN)
    age = values.get("age", UNKNOWN)
    return Person(
        sex=_SEX.get(sex.lower(), UNKNOWN) if isinstance(sex, str) else UNKNOWN,
        age=parse_years(age) if isinstance(age, str) else UNKNOWN,
        scanner=scanner,
    )
