"""Age and sex of the cases to predict, for models that join them to the network's markers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gliofed.data.formats.fields import person_of
from gliofed.errors import DataError
from gliofed.markers import ABSENT
from gliofed.models.folder import TrainedModel
from gliofed.tables import Table, TableRow, by_id, find_column, read_table
from gliofed.types import UNKNOWN, Person, Unknown
from gliofed.validation.locate import LocatedCase, LocatedSite

_ID: Final = "participant_id"


@dataclass(frozen=True)
class People:
    """given: of the only case, in place of the table's. by_case: hospital and subject to the row of
    participants.tsv."""

    given: Person = field(default_factory=Person)
    by_case: Mapping[tuple[str, str], Person] = field(default_factory=dict)

    def person(self, site: LocatedSite, located: LocatedCase) -> Person:
        """Age and sex of a case, as far as they are known."""
        row = self.by_case.get((site.name, located.subject), Person())
        return Person(
            row.sex if isinstance(self.given.sex, Unknown) else self.given.sex,
            row.age if isinstance(self.given.age, Unknown) else self.given.age,
        )


def find_people(
    model: TrainedModel, sites: Iterable[LocatedSite], cases: int, given: Person
) -> People:
    """Age and sex from `given` and each BIDS hospital's participants.tsv; nothing is read for a
    model that does not use them.

    cases: how many are predicted. Raises DataError where `given` has a value and the model uses
    none, or there are several cases, and for a table that cannot be read, with file and line.
    """
    has = not (isinstance(given.age, Unknown) and isinstance(given.sex, Unknown))
    if model.fusion is None:
        if has:
            raise DataError(
                f"model {model.id[:12]} uses no age and no sex; leave out --age and --sex, or give "
                'a model of a study with the model "fusion"'
            )
        return People()
    if has and cases != 1:
        raise DataError(
            f"--age and --sex are of one patient and there are {cases} cases; give one case, or "
            "write age and sex into participants.tsv of the BIDS hospital"
        )
    tables = [(site, t) for site in sites for t in site.tables if site.bids]
    return People(
        given,
        {
            (site.name, subject): _person(table, row)
            for site, path in tables
            for table in [read_table(path, delimiter="\t", utf8_only=True)]
            if _ID in table.columns
            for subject, row in by_id(table, _ID, str).items()
        },
    )


def _person(table: Table, row: TableRow) -> Person:
    cells = {}
    for name in ("age", "sex"):
        column = find_column(table, name)
        text = "" if column is None else row.cells[column].strip()
        cells[name] = UNKNOWN if text.lower() in ABSENT else text
    person = person_of(cells)
    for name, value in (("age", person.age), ("sex", person.sex)):
        if isinstance(value, Unknown) and not isinstance(cells[name], Unknown):
            raise DataError(
                f"{table.path}:{row.line}: {name} {cells[name]!r} cannot be read; write the age in "
                "years, the sex as F or M, and n/a where it is unknown"
            )
    return person


def parse_person(age: str, sex: str) -> Person:
    """Of the options --age and --sex; empty is unknown. Raises DataError."""
    person = person_of({"age": age or UNKNOWN, "sex": sex or UNKNOWN})
    if age and isinstance(person.age, Unknown):
        raise DataError(f"--age {age!r}: expected years, such as 54")
    if sex and isinstance(person.sex, Unknown):
        raise DataError(f"--sex {sex!r}: expected F or M")
    return person
