"""The audit of reading a data set: cases kept and dropped, and the value read for each cell.

    reading = read_ucsf(Path("UCSF-PDGM-v5"), "ucsf")
    print("\\n".join(reading.audit.lines()))

Every row of the set's table, and every scan without a row, is either a case or a `DroppedRow`.
Every cell that was read is in `mapped` with its value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gliofed.types import Case, Unknown

EXAMPLES = 3


@dataclass(frozen=True)
class DroppedRow:
    """A row or scan that is not a case. row: its id as written in the data set."""

    row: str
    reason: str


@dataclass(frozen=True)
class MappedValue:
    """One spelling in one column, its value, and the number of rows with it.

    marker_or_field: a marker id, or "sex", "age", "scanner", "session", "collection". value: the
    class, or UNKNOWN's text "unknown". Counts are over all rows, the dropped ones included.
    """

    column: str
    raw: str
    marker_or_field: str
    value: str
    count: int


@dataclass(frozen=True)
class DatasetAudit:
    """The audit of one data set. notes: further remarks, one sentence each."""

    format: str
    root: Path
    found: int
    kept: int
    dropped: tuple[DroppedRow, ...]
    mapped: tuple[MappedValue, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.found != self.kept + len(self.dropped):
            raise ValueError(
                f"{self.format}: {self.found} found, {self.kept} kept, {len(self.dropped)} dropped"
            )

    def reasons(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each reason with its dropped rows, the most frequent first."""
        rows: dict[str, list[str]] = {}
        for item in self.dropped:
            rows.setdefault(item.reason, []).append(item.row)
        ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
        return tuple((reason, tuple(names)) for reason, names in ordered)

    def lines(self) -> tuple[str, ...]:
        """The audit as lines of text; each reason names its first rows."""
        out = [
            f"{self.format}: {self.root}",
            f"found {self.found}, kept {self.kept}, dropped {len(self.dropped)}",
        ]
        for reason, rows in self.reasons():
            more = ", ..." if len(rows) > EXAMPLES else ""
            out.append(f"  dropped {len(rows)}: {reason} ({', '.join(rows[:EXAMPLES])}{more})")
        out += [
            f"  {m.column}: {m.raw!r} -> {m.marker_or_field} {m.value}: {m.count}"
            for m in self.mapped
        ]
        return (*out, *(f"  note: {n}" for n in self.notes))

    def plain(self) -> dict[str, object]:
        """The audit as values for JSON, with every dropped row."""
        return {
            "format": self.format,
            "root": str(self.root),
            "found": self.found,
            "kept": self.kept,
            "dropped": [{"row": d.row, "reason": d.reason} for d in self.dropped],
            "mapped": [
                {
                    "column": m.column,
                    "raw": m.raw,
                    "field": m.marker_or_field,
                    "value": m.value,
                    "count": m.count,
                }
                for m in self.mapped
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class DatasetReading:
    """The cases of one data set, ordered by id, and their audit."""

    cases: tuple[Case, ...]
    audit: DatasetAudit


def count_values(read: Iterable[tuple[str, str, str, str | Unknown]]) -> tuple[MappedValue, ...]:
    """Count (column, raw, field, value) rows; fields as they appear, frequent values first."""
    counts = Counter(
        (column, raw, field, "unknown" if isinstance(value, Unknown) else value)
        for column, raw, field, value in read
    )
    place = {key: n for n, key in enumerate(dict.fromkeys((c, f) for c, _, f, _ in counts))}
    ordered = sorted(counts.items(), key=lambda i: (place[i[0][0], i[0][2]], -i[1], i[0][1]))
    return tuple(MappedValue(*key, count) for key, count in ordered)
