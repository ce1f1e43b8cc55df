"""The mapping file: which columns of another program's tables hold what, as TOML.

model = "resnet"                 # default: the name of the file

[[tables]]
file = "idh.csv"                 # from the folder of this file
columns = { patient = "ID", site = "centre" }
[tables.idh]
truth = "IDH"
predicted = "call"
probability = "confidence"
classes = { Mut = "mutant", WT = "wildtype" }
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from gliofed.errors import StudyError
from gliofed.evaluation.prediction_table import (
    ID_COLUMNS,
    LESION_COLUMNS,
    NUMBER_COLUMNS,
    PERSON_COLUMNS,
)
from gliofed.markers import BY_ID, MARKERS, Marker
from gliofed.settings import build, read_toml

OTHER_COLUMNS: Final = (*ID_COLUMNS, *NUMBER_COLUMNS, *PERSON_COLUMNS, "sequences", *LESION_COLUMNS)
"""Columns of gliofed's table that are copied from one of the other table."""
Scale = Literal["fraction", "percent", "logit"]


@dataclass(frozen=True)
class MarkerColumns:
    """Columns of one marker.

    truth: of the true class. probability: of one class: of `of`, or of the class in the column
    `predicted`; with neither, of the second. probabilities: a column for each class, instead.
    classes: the table's word for a class to gliofed's, empty for unknown; further words are read as
    in `participants.tsv`. scale: "percent" from 0 to 100; "logit": log odds, of several columns the
    softmax.
    """

    truth: str = ""
    probability: str = ""
    of: str = ""
    predicted: str = ""
    probabilities: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    scale: Scale = "fraction"

    @property
    def is_predicted(self) -> bool:
        """Whether there is a probability."""
        return bool(self.probability or self.probabilities)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns of the table that it names."""
        named = (self.truth, self.probability, self.predicted, *self.probabilities.values())
        return tuple(filter(None, named))


@dataclass(frozen=True)
class MappedTable:
    """columns: gliofed's column to that of `file`. markers: by id."""

    file: Path
    columns: Mapping[str, str]
    markers: Mapping[str, MarkerColumns] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionMapping:
    """model: the model's name. linked: whether a patient has the same name in all tables."""

    model: str = ""
    linked: bool = True
    tables: tuple[MappedTable, ...] = ()


def read_mapping(path: Path) -> PredictionMapping:
    """Read a mapping file; paths of tables become relative to its folder.

    Raises StudyError: no such file, not TOML, an unknown key, or columns that do not make a table
    of predictions.
    """
    raw = read_toml(path, "mapping")
    tables = raw.pop("tables", None)
    if not isinstance(tables, list) or not tables:
        raise StudyError(f"{path}: no table; expected [[tables]] with 'file' and 'columns'")
    mapping = build(PredictionMapping, raw, str(path))
    read = tuple(_table(t, f"{path}: [[tables]] {i}") for i, t in enumerate(tables, 1))
    read = tuple(replace(t, file=path.parent / t.file) for t in read)
    mapping = replace(mapping, model=mapping.model or path.stem, tables=read)
    _check_together(mapping, str(path))
    return mapping


def _table(raw: object, where: str) -> MappedTable:
    if not isinstance(raw, Mapping):
        raise StudyError(f"{where}: expected a table, found {raw!r}")
    known = ("file", "columns", *BY_ID)
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise StudyError(f"{where}: unknown key {key!r}; the nearest valid key is {near!r}")
    own = {k: v for k, v in raw.items() if k not in BY_ID}
    table = build(MappedTable, own, where)
    _check_columns(table, where)
    markers = {}
    for marker in MARKERS:
        if marker.id in raw:
            place = f"{where}: {marker.id}"
            markers[marker.id] = build(MarkerColumns, raw[marker.id], place)
            _check_marker(markers[marker.id], marker, place)
    return replace(table, markers=markers)


def _check_columns(table: MappedTable, where: str) -> None:
    for name in table.columns:
        if name not in OTHER_COLUMNS:
            near = difflib.get_close_matches(name, OTHER_COLUMNS, n=1, cutoff=0.0)[0]
            raise StudyError(
                f"{where}: columns: {name!r} is no column of gliofed's table; the nearest is "
                f"{near!r}; a marker has a table of its own, [tables.idh]"
            )
    if not {"patient", "case"} & table.columns.keys():
        raise StudyError(
            f"{where}: columns: neither 'patient' nor 'case'; expected for example "
            'columns = { patient = "ID" }'
        )


def _check_marker(own: MarkerColumns, marker: Marker, where: str) -> None:
    names = ", ".join(marker.classes)
    two = len(marker.classes) == 2
    for word in filter(None, (*own.classes.values(), own.of)):
        if word not in marker.classes:
            raise StudyError(f"{where}: {word!r} is no class; expected one of {names}")
    if own.probabilities and (own.probability or own.of or own.predicted):
        raise StudyError(f"{where}: 'probabilities' beside 'probability'; keep one of them")
    if own.probabilities and own.probabilities.keys() != set(marker.classes):
        raise StudyError(f"{where}: probabilities: expected a column for each of {names}")
    if own.of and own.predicted:
        raise StudyError(f"{where}: 'of' beside 'predicted'; a probability is of one class")
    if (own.of or own.predicted) and not own.probability:
        raise StudyError(f"{where}: no 'probability'; name the column that holds it")
    if own.probability and not two:
        raise StudyError(
            f"{where}: one probability does not give those of {len(marker.classes)} classes; "
            f"expected probabilities = {{ ... }} with a column for each of {names}"
        )
    if not own.names:
        raise StudyError(f"{where}: neither 'truth' nor a probability; name a column")


def _check_together(mapping: PredictionMapping, where: str) -> None:
    """Linked tables have the same keys, and one of them a marker's truth, one its probability.
    Of tables that are not linked, each has both."""
    if not mapping.linked:
        for number, table in enumerate(mapping.tables, 1):
            _check_both([table], f"{where}: [[tables]] {number}")
        return
    keys = [{"patient", "case"} & t.columns.keys() for t in mapping.tables]
    if any(key != keys[0] for key in keys):
        raise StudyError(
            f"{where}: 'patient' and 'case' are not named in all tables alike, so that their rows "
            "cannot be joined; name the same in all, or set linked = false"
        )
    _check_both(mapping.tables, where)


def _check_both(tables: Sequence[MappedTable], where: str) -> None:
    for marker in MARKERS:
        own = [t.markers[marker.id] for t in tables if marker.id in t.markers]
        for what, count in (
            ("truth", sum(bool(m.truth) for m in own)),
            ("probability", sum(m.is_predicted for m in own)),
        ):
            if own and not count:
                raise StudyError(f"{where}: {marker.id}: no {what}; name its column")
            if count > 1:
                raise StudyError(
                    f"{where}: {marker.id}: a {what} in {count} tables; keep one, or set "
                    "linked = false where they are of different patients"
                )
