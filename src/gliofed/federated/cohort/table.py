"""Who is in the federation: counts by site, merged from sums, with small ones hidden.

A site sends how many of its patients fall into each category of each variable; the server puts
the sites' counts below each other and adds them. Sites with fewer than eleven cases are left out
of the table and of its totals; small cells of the others are hidden
(`gliofed.federated.cohort.suppression`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from gliofed.errors import UpdateError
from gliofed.federated.cohort.suppression import SMALLEST_SHOWN, hidden_cells
from gliofed.federated.message_table import COHORT, check_note
from gliofed.federated.schema import Whole, shown
from gliofed.federated.wire import pack, receive, require_no_tensors
from gliofed.markers import MARKERS
from gliofed.types import SEQUENCES, Case, Unknown
from gliofed.types import Sequence as Mri

UNKNOWN_TEXT: Final = "unknown"
BAND_YEARS: Final = 10
_OLDEST: Final = 90


@dataclass(frozen=True)
class CohortVariable:
    """One variable of the table. categories: in the order shown; None: as the sites name them."""

    name: str
    of: Callable[[Case], str]
    categories: tuple[str, ...] | None


def age_band(case: Case) -> str:
    """Ten years, as `40-49`; one band from 90 on, since ages above 89 may identify a patient."""
    age = case.person.age
    if isinstance(age, Unknown):
        return UNKNOWN_TEXT
    low = math.floor(age / BAND_YEARS) * BAND_YEARS
    return f"{_OLDEST}+" if low >= _OLDEST else f"{low}-{low + BAND_YEARS - 1}"


def _text(value: str | Unknown) -> str:
    return UNKNOWN_TEXT if isinstance(value, Unknown) else value


def _marker(marker: str, case: Case) -> str:
    return _text(case.labels[marker])


def _sequence(sequence: Mri, case: Case) -> str:
    return "scanned" if sequence in case.images else "missing"


_BANDS = tuple(f"{low}-{low + BAND_YEARS - 1}" for low in range(0, _OLDEST, BAND_YEARS))
VARIABLES: Final[tuple[CohortVariable, ...]] = (
    *(CohortVariable(m.title, partial(_marker, m.id), (*m.classes, UNKNOWN_TEXT)) for m in MARKERS),
    CohortVariable("sex", lambda case: _text(case.person.sex), ("F", "M", UNKNOWN_TEXT)),
    CohortVariable("age", age_band, (*_BANDS, f"{_OLDEST}+", UNKNOWN_TEXT)),
    CohortVariable("scanner", lambda case: _text(case.person.scanner), None),
    *(CohortVariable(s.value, partial(_sequence, s), ("scanned", "missing")) for s in SEQUENCES),
)


@dataclass(frozen=True)
class CohortCounts:
    """One site's sums. counts: variable to category to cases; each variable's add up to cases."""

    cases: int
    counts: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class CohortRow:
    """One published line: count is None where it is hidden. site None: all shown sites."""

    variable: str
    category: str
    site: str | None
    count: int | None


@dataclass(frozen=True)
class CohortTable:
    """What is published. sites: each shown site to its cases. left_out: sites of 1 to 10 cases."""

    sites: Mapping[str, int]
    left_out: int
    rows: tuple[CohortRow, ...]


def count_cohort(cases: Sequence[Case]) -> CohortCounts:
    """The sums of one site."""
    return CohortCounts(len(cases), {v.name: dict(Counter(map(v.of, cases))) for v in VARIABLES})


def pack_cohort(cohort: CohortCounts, site: str) -> bytes:
    """A site's sums as bytes."""
    counts = {name: dict(by_category) for name, by_category in cohort.counts.items()}
    return pack({}, {"form": COHORT, "site": site, "cases": cohort.cases, "counts": counts})


def read_cohort(site: str, data: bytes, most: int) -> CohortCounts:
    """The sums in `data`, after checks. most: largest number of cases of a site.

    Raises UpdateError naming the site: another form or site, a variable missing or unknown, a
    category that the variable does not have, a count that is not an integer of at least 0, or
    counts that do not add up to the cases.
    """
    try:
        _, note = receive(data, require_no_tensors)
        check_note("CohortCounts", note, site)
        Whole(0, most).check(note["cases"], "cases")
        for variable in VARIABLES:
            _check_variable(variable, note["counts"][variable.name], note["cases"])
    except UpdateError as error:
        raise UpdateError(f"site {site}: its cohort sums: {error}") from None
    return CohortCounts(note["cases"], note["counts"])


def _check_variable(variable: CohortVariable, by_category: Mapping[str, int], cases: int) -> None:
    """Raise UpdateError for an unknown category, and for a sum other than `cases`."""
    if variable.categories is not None:
        names = sorted(set(by_category) - {*variable.categories})
        if names:
            raise UpdateError(f"{variable.name} has categories {shown(names)}")
    if sum(by_category.values()) != cases:
        raise UpdateError(f"{variable.name} adds up to {sum(by_category.values())}")


def merge_cohorts(cohorts: Mapping[str, CohortCounts]) -> CohortTable:
    """The table of all sites, small counts hidden."""
    shown = {s: c for s, c in sorted(cohorts.items()) if c.cases >= SMALLEST_SHOWN}
    rows: list[CohortRow] = []
    for variable in VARIABLES:
        rows += _rows(variable, shown)
    return CohortTable(
        sites={s: c.cases for s, c in shown.items()},
        left_out=sum(0 < c.cases < SMALLEST_SHOWN for c in cohorts.values()),
        rows=tuple(rows),
    )


def _rows(variable: CohortVariable, shown: Mapping[str, CohortCounts]) -> list[CohortRow]:
    found = {k for c in shown.values() for k in c.counts[variable.name]}
    categories = variable.categories or tuple(sorted(found, key=lambda k: (k == UNKNOWN_TEXT, k)))
    counts = np.array(
        [[c.counts[variable.name].get(k, 0) for k in categories] for c in shown.values()], np.int64
    ).reshape(len(shown), len(categories))
    if not shown:
        return []
    hidden = hidden_cells(counts)
    table = np.vstack([counts, counts.sum(axis=0)])
    return [
        CohortRow(variable.name, category, site, None if hidden[r, c] else int(table[r, c]))
        for c, category in enumerate(categories)
        for r, site in enumerate((*shown, None))
    ]
