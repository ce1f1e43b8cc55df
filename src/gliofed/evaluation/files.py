"""Predictions and scores as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gliofed import types
from gliofed.evaluation.prediction_table import (
    ID_COLUMNS,
    NUMBER_COLUMNS,
    PERSON_COLUMNS,
    prediction_columns,
)
from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS
from gliofed.types import SEQUENCES, Unknown

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def predictions_csv(results: Sequence[CaseResult]) -> str:
    """One line a case and model: truth and probability of every class, segmentation, patient.

    Unknown labels and absent figures are empty cells; numbers read back exactly, by
    `prediction_table.parse_predictions`.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(prediction_columns())
    for result in results:
        cells: list[object] = [getattr(result, name) for name in ID_COLUMNS]
        for marker in MARKERS:
            cells += [result.labels[marker.id], *result.probabilities[marker.id]]
        cells += [getattr(result, name) for name in NUMBER_COLUMNS]
        cells += [getattr(result.person, name) for name in PERSON_COLUMNS]
        cells.append(_sequences(result.sequences))
        counted = result.lesions
        cells += (counted.true, counted.detected, counted.false) if counted else (None, None, None)
        writer.writerow([_text(cell) for cell in cells])
    return out.getvalue()


def rows_csv(kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> str:
    """Frozen rows of one kind: a head of its fields, then one line a row; an absent figure is an
    empty cell."""
    out = io.StringIO()
    names = [f.name for f in dataclasses.fields(kind)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if (v := getattr(row, n)) is None else v for n in names])
    return out.getvalue()


def rows_json(rows: Sequence[DataclassInstance]) -> str:
    """The same rows as a list of objects; an absent figure is null."""
    return json.dumps([dataclasses.asdict(r) for r in rows], indent=1)


def _text(value: object) -> str:
    """A cell; empty if unknown."""
    return "" if value is None or isinstance(value, Unknown) else str(value)


def _sequences(found: frozenset[types.Sequence] | None) -> str:
    return "+".join(s for s in SEQUENCES if found is not None and s in found)
