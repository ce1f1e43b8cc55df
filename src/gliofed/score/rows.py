"""Tables of frozen rows as files that a spreadsheet or a peer's script can read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def rows_csv(kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> str:
    """A head of the kind's fields, then one line a row; an absent figure is an empty cell."""
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
