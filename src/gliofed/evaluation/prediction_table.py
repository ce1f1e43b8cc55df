"""Predictions from a table: gliofed's own `predictions.csv`, or that of any other model.

One line a case. Required: `patient` or `case`, and something to score: a marker's truth with its
probabilities, or `dice`. docs/how-to/score-any-model.md lists every column.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from gliofed import types
from gliofed.errors import DataError
from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.results import CaseResult, LesionCounts, Role
from gliofed.markers import ABSENT, MARKERS, Marker
from gliofed.tables import parse_table
from gliofed.types import SEQUENCES, UNKNOWN, Labels, Person, Unknown

ID_COLUMNS: Final = ("model", "seed", "fold", "role", "case", "site", "patient")
NUMBER_COLUMNS: Final = ("dice", "hd95_mm", "volume_ml", "volume_true_ml", "agreement")
PERSON_COLUMNS: Final = ("age", "sex", "scanner")
LESION_COLUMNS: Final = ("lesions_true", "lesions_found", "lesions_false")
SUM_TOLERANCE: Final = 1e-3
"""Tolerance of the sum of the probabilities."""
_MOST: Final = {"dice": 1.0, "agreement": 1.0, "age": 130.0}
_ALIKE: Final = 0.85
_SEXES: Final[Mapping[str, Literal["F", "M"]]] = {"f": "F", "female": "F", "m": "M", "male": "M"}
_T = TypeVar("_T")


def class_columns(marker: Marker) -> tuple[str, ...]:
    """The columns of a marker's probabilities, one a class."""
    return tuple(f"{marker.id}_p_{c}" for c in marker.classes)


def prediction_columns() -> tuple[str, ...]:
    """Every column that gliofed writes, in its order."""
    markers = [name for m in MARKERS for name in (f"{m.id}_true", *class_columns(m))]
    return (*ID_COLUMNS, *markers, *NUMBER_COLUMNS, *PERSON_COLUMNS, "sequences", *LESION_COLUMNS)


def parse_predictions(
    text: str, where: str, model: str = "", needs_truth: bool = True
) -> tuple[CaseResult, ...]:
    """Parse predictions from comma-, semicolon- or tab-separated text with a header line.

    where: the file, for messages. model: name of the model if the table has none. needs_truth:
    False where the labels are known from elsewhere. Unknown columns are ignored. Raises DataError
    naming line and column.
    """
    table = parse_table(text, Path(where))
    _check_header(tuple(name.casefold() for name in table.columns), where, needs_truth)
    answers: list[CaseResult] = []
    seen: dict[tuple[object, ...], int] = {}
    for line in table.rows:
        cells = {name.casefold(): cell for name, cell in line.cells.items()}
        row = _PredictionLine(f"{where}:{line.line}", cells)
        answer = _answer(row, model)
        key = result_key(answer)
        if key in seen:
            raise DataError(
                f"{where}:{line.line}: patient {answer.patient!r}, case {answer.case!r} of model "
                f"{answer.model!r}, seed {answer.seed}, fold {answer.fold!r} is in line "
                f"{seen[key]} already; keep one"
            )
        seen[key] = line.line
        answers.append(answer)
    return tuple(answers)


def result_key(answer: CaseResult) -> tuple[object, ...]:
    """The key of a prediction; no two predictions may share it."""
    return (answer.model, answer.seed, answer.fold, answer.site, answer.patient, answer.case)


@dataclass(frozen=True)
class _PredictionLine:
    """One line. place: its file and line. A missing column reads as empty cells."""

    place: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell; empty if its text stands for an unknown value."""
        cell = self.cells.get(column, "")
        return "" if cell.casefold() in ABSENT else cell

    def read(self, column: str, parse: Callable[[str], _T], expected: str) -> _T | None:
        """The value of the cell; None if unknown."""
        cell = self.text(column)
        if not cell:
            return None
        try:
            return parse(cell)
        except (ValueError, KeyError):
            raise DataError(
                f"{self.place}: column {column!r}: {cell!r}; expected {expected}, or an empty cell"
            ) from None

    def number(self, column: str) -> float | None:
        most = _MOST.get(column, math.inf)
        limit = f"from 0 to {most:g}" if column in _MOST else "of at least 0"
        return self.read(column, lambda cell: _number(cell, most), f"a number {limit}")


def _check_header(header: Sequence[str], where: str, needs_truth: bool) -> None:
    short = {f"{m.id}_p": m for m in MARKERS if len(m.classes) == 2}
    known = (*prediction_columns(), *short)
    for name in header:
        if name not in known:
            _check_unknown(name, [k for k in known if k not in header], where)
    if not {"patient", "case"} & set(header):
        raise DataError(f"{where}:1: no column 'patient' or 'case'; one of them is needed")
    scored = [_has(marker, header, where, needs_truth) for marker in MARKERS]
    if not any(scored) and "dice" not in header:
        raise DataError(
            f"{where}:1: nothing to score; expected a marker's truth and probabilities, for "
            f"example 'idh_true' and 'idh_p', or 'dice'"
        )
    some = [name for name in LESION_COLUMNS if name in header]
    if some and len(some) < len(LESION_COLUMNS):
        raise DataError(f"{where}:1: {some[0]!r} needs all of {', '.join(LESION_COLUMNS)}")


def _check_unknown(name: str, free: Collection[str], where: str) -> None:
    """Refuse a misspelt column name."""
    near = difflib.get_close_matches(name, free, n=1, cutoff=_ALIKE)
    if near:
        raise DataError(f"{where}:1: column {name!r} is unknown; did you mean {near[0]!r}?")
    for marker in MARKERS:
        if name.startswith(f"{marker.id}_p_"):
            expected = ", ".join(class_columns(marker))
            raise DataError(f"{where}:1: column {name!r} is unknown; expected {expected}")


def _has(marker: Marker, header: Collection[str], where: str, needs_truth: bool) -> bool:
    """Whether the table has the marker's probabilities. Truth alone is refused, and probabilities
    alone where truth is needed."""
    truth, each, alone = f"{marker.id}_true", class_columns(marker), f"{marker.id}_p"
    ways = [" and ".join(f"{n!r}" for n in each)]
    if len(each) == 2:
        ways += [repr(each[1]), repr(alone)]
    found = [n for n in (*each, alone) if n in header and (n != alone or len(each) == 2)]
    if alone in found and len(found) > 1:
        raise DataError(f"{where}:1: {alone!r} beside {found[0]!r}; keep one way of writing it")
    enough = set(each) <= set(found) or (len(each) == 2 and found in ([each[1]], [alone]))
    if found and not enough:
        raise DataError(f"{where}:1: {found[0]!r} alone; expected {' or '.join(ways)}")
    if (truth in header) != bool(found) and (needs_truth or truth in header):
        here, lacking = (truth, " or ".join(ways)) if truth in header else (found[0], repr(truth))
        raise DataError(f"{where}:1: {here!r} without {lacking}")
    return bool(found)


def _answer(row: _PredictionLine, model: str) -> CaseResult:
    site = row.text("site") or ALL_SITES
    case, patient = row.text("case"), row.text("patient")
    if not (case or patient):
        raise DataError(f"{row.place}: neither 'patient' nor 'case' is filled in")
    name = row.text("model") or model
    if not name:
        raise DataError(f"{row.place}: column 'model': expected the model's name")
    role: Role | None = row.read("role", _role, "'external' or 'holdout'")
    seed = row.read("seed", int, "a whole number")
    sequences = row.read("sequences", _sequences, f"for example {'+'.join(SEQUENCES)}")
    return CaseResult(
        model=name,
        seed=1 if seed is None else seed,
        fold=row.text("fold") or "external",
        role=role or "external",
        case=case or patient,
        site=site,
        patient=patient or (case if site == ALL_SITES else f"{site}/{case}"),
        labels=Labels({m.id: _truth(row, m) for m in MARKERS}),
        probabilities={m.id: _probabilities(row, m) for m in MARKERS},
        dice=row.number("dice"),
        hd95_mm=row.number("hd95_mm"),
        volume_ml=row.number("volume_ml"),
        volume_true_ml=row.number("volume_true_ml"),
        agreement=row.number("agreement"),
        person=_person(row),
        sequences=sequences,
        lesions=_lesions(row),
    )


def _truth(row: _PredictionLine, marker: Marker) -> str | Unknown:
    column = f"{marker.id}_true"
    expected = f"one of {', '.join(sorted(marker.codes))}"
    found = row.read(column, marker.parse, expected)
    return UNKNOWN if found is None else found


def _probabilities(row: _PredictionLine, marker: Marker) -> tuple[float, ...]:
    """NaN if missing. Of two classes, a missing first one is computed from the second."""
    names = [n for n in (*class_columns(marker), f"{marker.id}_p") if n in row.cells]
    found = [row.read(n, lambda cell: _number(cell, 1.0), "a number from 0 to 1") for n in names]
    probabilities = [math.nan if p is None else p for p in found]
    if not probabilities:
        return (math.nan,) * len(marker.classes)
    if len(probabilities) == 1:
        return (1 - probabilities[0], probabilities[0])
    total = math.fsum(probabilities)
    if abs(total - 1) > SUM_TOLERANCE:  # never of NaN
        raise DataError(
            f"{row.place}: columns {', '.join(names)} add up to {total:.6g}; expected 1"
        )
    return tuple(probabilities)


def _number(text: str, most: float) -> float:
    found = float(text)
    if not (0 <= found <= most and math.isfinite(found)):
        raise ValueError(text)
    return found


def _person(row: _PredictionLine) -> Person:
    sex = row.read("sex", lambda cell: _SEXES[cell.casefold()], "F or M")
    age = row.number("age")
    return Person(
        UNKNOWN if sex is None else sex,
        UNKNOWN if age is None else age,
        row.text("scanner") or UNKNOWN,
    )


def _sequences(text: str) -> frozenset[types.Sequence]:
    return frozenset(types.Sequence(part.strip().upper()) for part in text.split("+"))


def _lesions(row: _PredictionLine) -> LesionCounts | None:
    found = [row.read(n, _count, "an integer of at least 0") for n in LESION_COLUMNS]
    true, met, false = found
    if true is None or met is None or false is None:
        return None
    if met > true:
        raise DataError(f"{row.place}: {met} lesions found of {true}")
    return LesionCounts(true, met, false)


def _count(text: str) -> int:
    found = int(text)
    if found < 0:
        raise ValueError(text)
    return found


def _role(text: str) -> Role:
    if text == "external":
        return "external"
    if text == "holdout":
        return "holdout"
    raise ValueError(text)
