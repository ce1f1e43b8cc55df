"""The private table in which a person decides what headers leave open.

One row a series: `patient` (pseudonym), `study` (1 for the earliest), `number`, `description`,
`protocol`, `scanner`, `read` (times and other values), `candidates`, `confidence`, `reason`,
`series` (a keyed name of the series), `decision`: T1, T1CE, T2, FLAIR, skip, or empty for not
decided yet. A row whose `series` is `*` is a rule: it decides every series that has its
description, protocol and scanner; an empty one of the three fits any, and `*` in it any text.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from gliofed.errors import DataError
from gliofed.runtime.files import write_private
from gliofed.tables import TableRow, read_table
from gliofed.types import Sequence

SKIP: Final = "skip"
COLUMNS: Final = (
    "patient",
    "study",
    "number",
    "description",
    "protocol",
    "scanner",
    "read",
    "candidates",
    "confidence",
    "reason",
    "series",
    "decision",
)
RULE: Final = "*"
"""The name of the series in the row of a rule."""
_NEEDED: Final = ("series", "decision")
_WORDS: Final = {s.value.lower(): s for s in Sequence}


@dataclass(frozen=True)
class SeriesDecision:
    """The decision of a person. sequence: None to skip the series. line: in the file.

    by_rule: whether a rule decided; a row of the series itself comes before a rule.
    """

    sequence: Sequence | None
    line: int
    by_rule: bool = False

    @property
    def word(self) -> str:
        """As it is written in the table."""
        return SKIP if self.sequence is None else self.sequence.value


@dataclass(frozen=True)
class SeriesTexts:
    """What a rule compares."""

    description: str
    protocol: str
    scanner: str


@dataclass(frozen=True)
class DecisionRule:
    """A decision for every series with these texts; an empty text fits any, `*` any letters."""

    texts: SeriesTexts
    decision: SeriesDecision

    def fits(self, series: SeriesTexts) -> bool:
        """Whether all texts that it states are those of a series, in any case of letters."""
        pairs = zip(astuple(self.texts), astuple(series), strict=True)
        return all(not own or fnmatchcase(_plain(text), _pattern(own)) for own, text in pairs)


@dataclass(frozen=True)
class DecisionTable:
    """What a person has decided. by_series: by the keyed name of a series."""

    path: Path
    by_series: Mapping[str, SeriesDecision]
    rules: tuple[DecisionRule, ...]

    def of(self, series: str, texts: SeriesTexts) -> SeriesDecision | None:
        """The decision on a series; None where there is none.

        Raises DataError where two rules decide differently.
        """
        if series in self.by_series:
            return self.by_series[series]
        fitting = [r.decision for r in self.rules if r.fits(texts)]
        for other in fitting[1:]:
            if other.sequence is not fitting[0].sequence:
                raise DataError(
                    f"{self.path}:{other.line}: the rule decides {other.word} for series {series}, "
                    f"that on line {fitting[0].line} {fitting[0].word}; narrow one of them, or add "
                    "a row for the series"
                )
        return fitting[0] if fitting else None


@dataclass(frozen=True)
class DecisionQuestion:
    """One row. cells: text of the columns but `decision`, in order."""

    series: str
    cells: tuple[str, ...]


def read_decisions(path: Path) -> DecisionTable:
    """The decisions and rules of a table; empty where there is no file.

    Raises DataError with file and line: a column is missing, a decision is none of the five words,
    a series has two different decisions, or a rule states no text.
    """
    if not path.exists():
        return DecisionTable(path, {}, ())
    table = read_table(path, delimiter="\t", utf8_only=True)
    for name in _NEEDED:
        if name not in table.columns:
            raise DataError(
                f"{path}: no column {name!r}; move the file away and run intake again for a new one"
            )
    out: dict[str, SeriesDecision] = {}
    rules: list[DecisionRule] = []
    for row in table.rows:
        decision, name = _decision(path, row), row.cells["series"]
        if decision is None:
            continue
        if name == RULE:
            rules.append(_rule(path, row, decision))
            continue
        if name in out and out[name].sequence is not decision.sequence:
            raise DataError(
                f"{path}:{row.line}: series {name} has another decision on line {out[name].line}; "
                "keep one row"
            )
        out[name] = decision
    return DecisionTable(path, out, tuple(rules))


def _decision(path: Path, row: TableRow) -> SeriesDecision | None:
    word = row.cells["decision"].lower()
    if word and word not in _WORDS and word != SKIP:
        raise DataError(
            f"{path}:{row.line}: decision {row.cells['decision']!r}; expected T1, T1CE, T2, "
            "FLAIR, skip, or nothing"
        )
    return SeriesDecision(_WORDS.get(word), row.line) if word else None


def _rule(path: Path, row: TableRow, decision: SeriesDecision) -> DecisionRule:
    texts = SeriesTexts(*(row.cells.get(f.name, "") for f in fields(SeriesTexts)))
    if not any(_plain(t).strip("*") for t in astuple(texts)):
        raise DataError(
            f"{path}:{row.line}: a rule for every series; write a description, protocol or scanner "
            "into its row"
        )
    return DecisionRule(texts, replace(decision, by_rule=True))


def _plain(text: str) -> str:
    return " ".join(text.casefold().replace('"', "'").split())


def _pattern(text: str) -> str:
    """For fnmatch, with `*` as its only sign."""
    return _plain(text).replace("[", "[[]").replace("?", "[?]")


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
