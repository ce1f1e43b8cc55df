"""The private table in which a person decides what headers leave open.

One row a series: `patient` (pseudonym), `study` (1 for the earliest), `number`, `description`,
`read` (times and other values), `candidates`, `confidence`, `reason`, `series` (a keyed name of the
series), `decision`: T1, T1CE, T2, FLAIR, skip, or empty for not decided yet.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.errors import DataError
from gliofed.runtime.files import write_private
from gliofed.tables import read_table
from gliofed.types import Sequence

SKIP: Final = "skip"
COLUMNS: Final = (
    "patient",
    "study",
    "number",
    "description",
    "read",
    "candidates",
    "confidence",
    "reason",
    "series",
    "decision",
)
_NEEDED: Final = ("series", "decision")
_WORDS: Final = {s.value.lower(): s for s in Sequence}


@dataclass(frozen=True)
class SeriesDecision:
    """The decision of a person. sequence: None to skip the series. line: in the file."""

    sequence: Sequence | None
    line: int


@dataclass(frozen=True)
class DecisionQuestion:
    """One row. cells: text of the columns but `decision`, in order."""

    series: str
    cells: tuple[str, ...]


def read_decisions(path: Path) -> Mapping[str, SeriesDecision]:
    """Keyed name of a series to its decision; empty where there is no file.

    Raises DataError with file and line: a column is missing, a decision is none of the five words,
    or a series has two different decisions.
    """
    if not path.exists():
        return {}
    table = read_table(path, delimiter="\t", utf8_only=True)
    for name in _NEEDED:
        if name not in table.columns:
            raise DataError(
                f"{path}: no column {name!r}; move the file away and run intake again for a new one"
            )
    out: dict[str, SeriesDecision] = {}
    for row in table.rows:
        word, name = row.cells["decision"].lower(), row.cells["series"]
        if not word:
            continue
        if word not in _WORDS and word != SKIP:
            raise DataError(
                f"{path}:{row.line}: decision {row.cells['decision']!r}; expected T1, T1CE, T2, "
                "FLAIR, skip, or nothing"
            )
        decision = SeriesDecision(_WORDS.get(word), row.line)
        if name in out and out[name].sequence is not decision.sequence:
            raise DataError(
                f"{path}:{row.line}: series {name} has another decision on line {out[name].line}; "
                "keep one row"
            )
        out[name] = decision
    return out


def write_questions(path: Path, questions: Iterable[DecisionQuestion]) -> None:
    """Add a row for every series that is not in the file yet; rows in the file stay unchanged."""
    lines: list[tuple[str, ...]] = []
    known: set[str] = set()
    if path.exists():
        table = read_table(path, delimiter="\t", utf8_only=True)
        lines = [tuple(row.cells.get(c, "") for c in COLUMNS) for row in table.rows]
        known = {row.cells.get("series", "") for row in table.rows}
    new = [(*q.cells, q.series, "") for q in questions if q.series not in known]
    if not new and path.exists():
        return
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([COLUMNS, *lines, *new])
    write_private(path, text.getvalue())
