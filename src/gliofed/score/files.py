"""Predictions and scores as files that a spreadsheet or a peer's script can read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from gliofed.errors import DataError
from gliofed.markers import MARKERS
from gliofed.score.results import CaseResult, ScoreRow
from gliofed.types import Labels, Unknown

_PLAIN = ("model", "seed", "fold", "role", "case", "site", "patient")
_NUMBERS = ("dice", "hd95_mm", "volume_ml", "volume_true_ml")


def predictions_csv(results: Sequence[CaseResult]) -> str:
    """One line a case and model: truth and probability of every class, Dice, volumes.

    Unknown labels and absent figures are empty cells; numbers read back exactly.
    """
    head = [*_PLAIN]
    for marker in MARKERS:
        head += [f"{marker.id}_true", *(f"{marker.id}_p_{c}" for c in marker.classes)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, *_NUMBERS])
    for result in results:
        cells: list[object] = [getattr(result, name) for name in _PLAIN]
        for marker in MARKERS:
            value = result.labels[marker.id]
            cells.append("" if isinstance(value, Unknown) else value)
            cells += [repr(p) for p in result.probabilities[marker.id]]
        numbers = [getattr(result, name) for name in _NUMBERS]
        writer.writerow([*cells, *("" if n is None else repr(n) for n in numbers)])
    return out.getvalue()


def parse_predictions(text: str, where: str) -> tuple[CaseResult, ...]:
    """What `predictions_csv` wrote. Raises DataError naming the line that does not read."""
    results = []
    for line, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            results.append(_result(row))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{where}:{line}: not a line of predictions: {error}") from None
    return tuple(results)


def scores_csv(rows: Sequence[ScoreRow]) -> str:
    """One line a figure; an absent figure is an empty cell and its note says why."""
    out = io.StringIO()
    names = [f.name for f in dataclasses.fields(ScoreRow)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if (v := getattr(row, n)) is None else v for n in names])
    return out.getvalue()


def scores_json(rows: Sequence[ScoreRow]) -> str:
    """The same rows as a list of objects."""
    return json.dumps([dataclasses.asdict(r) for r in rows], indent=1)


def _result(row: dict[str, str]) -> CaseResult:
    numbers = {n: float(row[n]) if row[n] else None for n in _NUMBERS}
    role = row["role"]
    if role not in ("external", "holdout"):
        raise ValueError(f"role {role!r}")
    return CaseResult(
        model=row["model"],
        seed=int(row["seed"]),
        fold=row["fold"],
        role="external" if role == "external" else "holdout",
        case=row["case"],
        site=row["site"],
        patient=row["patient"],
        labels=Labels({m.id: t for m in MARKERS if (t := row[f"{m.id}_true"])}),
        probabilities={
            m.id: tuple(float(row[f"{m.id}_p_{c}"]) for c in m.classes) for m in MARKERS
        },
        dice=numbers["dice"],
        hd95_mm=numbers["hd95_mm"],
        volume_ml=numbers["volume_ml"],
        volume_true_ml=numbers["volume_true_ml"],
    )
