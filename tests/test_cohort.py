"""The federated cohort table, and a reader who tries to bring hidden counts back."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from gliofed.errors import UpdateError
from gliofed.federated.cohort import suppression
from gliofed.federated.cohort.cell_ranges import cell_range
from gliofed.federated.cohort.suppression import hidden_cells, is_small
from gliofed.federated.cohort.table import (
    VARIABLES,
    CohortTable,
    age_band,
    count_cohort,
    merge_cohorts,
    pack_cohort,
    read_cohort,
)
from gliofed.federated.wire import pack
from gliofed.types import UNKNOWN, Case, Labels, Person, Sequence


def case(number: int, idh: str | None = "mutant", age: float = 44.0, sex: str = "F") -> Case:
    labels = Labels({"idh": idh} if idh else {})
    images = {Sequence.FLAIR: Path()}
    return Case(str(number), "a", str(number), images, None, labels, Person(sex, age))


def site(mutant: int, wild: int, unknown: int = 0) -> list[Case]:
    kinds = ["mutant"] * mutant + ["wildtype"] * wild + [None] * unknown
    return [case(n, kind) for n, kind in enumerate(kinds)]


def attack(published: dict[tuple[int, int], int | None], sums: list[int], columns: int):
    """An adversary of the test's own: every published number is an equation."""
    rows = len(sums)
    names = [(r, c) for r in range(rows + 1) for c in range(columns)]
    place = {n: i for i, n in enumerate(names)}
    equations, right = [], []

    def add(terms: dict[tuple[int, int], float], value: float) -> None:
        line = np.zeros(len(names))
        for name, factor in terms.items():
            line[place[name]] = factor
        equations.append(line)
        right.append(value)

    for name, value in published.items():
        if value is not None:
            add({name: 1}, value)
    for r, total in enumerate(sums):
        add({(r, c): 1 for c in range(columns)}, total)
    add({(rows, c): 1 for c in range(columns)}, sum(sums))
    for c in range(columns):
        add({**{(r, c): 1 for r in range(rows)}, (rows, c): -1}, 0)
    found = {}
    for name, value in published.items():
        if value is None:
            goal = np.zeros(len(names))
            goal[place[name]] = 1
            least = linprog(goal, A_eq=np.array(equations), b_eq=right).fun
            most = -linprog(-goal, A_eq=np.array(equations), b_eq=right).fun
            found[name] = (least, most)
    return found


def published_cells(counts: np.ndarray) -> dict[tuple[int, int], int | None]:
    hidden = hidden_cells(counts)
    table = np.vstack([counts, counts.sum(axis=0)])
    return {(r, c): None if hidden[r, c] else int(v) for (r, c), v in np.ndenumerate(table)}


tables = st.integers(1, 4).flatmap(
    lambda rows: st.integers(1, 5).flatmap(
        lambda columns: st.lists(
            st.lists(
                st.one_of(st.just(0), st.integers(1, 10), st.integers(9, 13), st.integers(0, 300)),
                min_size=columns,
                max_size=columns,
            ).filter(lambda r: sum(r) >= 11),
            min_size=rows,
            max_size=rows,
        )
    )
)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(tables)
def test_no_hidden_count_can_be_had_from_the_rest(rows) -> None:
    counts = np.array(rows)
    published = published_cells(counts)
    truth = np.vstack([counts, counts.sum(axis=0)])
    for value in published.values():
        assert value is None or not 1 <= value <= 10, "a small count is shown"
    sums = [sum(r) for r in rows]
    for insider in (None, *range(len(rows))):
        known = {n: int(truth[n]) if n[0] == insider else v for n, v in published.items()}
        seen = np.array([v is None for v in known.values()]).reshape(truth.shape)
        for name, (least, most) in attack(known, sums, counts.shape[1]).items():
            own = cell_range(truth, seen, name)
            assert (own.low, own.high) == pytest.approx((least, most))
            assert own.low <= truth[name] <= own.high
            if insider is not None and (name[0] == len(rows) or len(rows) == 1):
                continue  # of a total, a site knows at least its own share
            assert most - least >= 9 - 1e-6
            if 1 <= truth[name] <= 10:
                assert least <= 1 + 1e-6
                assert most >= 10 - 1e-6


def test_the_audit_agrees_with_trying_every_table() -> None:
    counts = np.array([[3, 20, 9], [12, 2, 15]])
    table = np.vstack([counts, counts.sum(axis=0)])
    hidden = is_small(table)
    hidden[0, 1] = hidden[1, 0] = True
    found: dict[tuple[int, int], set[int]] = {}
    for flat in itertools.product(range(24), repeat=2):
        for last in range(33):
            rows = np.array([[*flat, 32 - sum(flat)], [last, 29 - last - 15, 15]])
            trial = np.vstack([rows, rows.sum(axis=0)])
            if rows.min() >= 0 and (trial[~hidden] == table[~hidden]).all():
                for cell in zip(*np.nonzero(hidden), strict=True):
                    found.setdefault(cell, set()).add(int(trial[cell]))
    for cell, values in found.items():
        own = cell_range(table, hidden, tuple(map(int, cell)))
        assert (own.low, own.high) == (min(values), max(values))


@pytest.mark.parametrize("sites", [20, 40])
def test_a_cell_is_not_examined_again_for_every_site(sites, monkeypatch) -> None:
    counts = np.random.default_rng(1).multinomial(32, np.full(11, 1 / 11), size=sites)
    examined = []

    def counted(table, hidden, cell, wanted):
        examined.append(cell)
        return cell_range(table, hidden, cell, wanted)

    monkeypatch.setattr(suppression, "cell_range", counted)
    hidden = hidden_cells(counts)
    assert hidden.sum() > 8 * sites
    assert len(examined) < 6 * hidden.sum()  # for each reader: `sites` times as many as cells


def test_suppressing_small_cells_alone_would_be_undone() -> None:
    """What complementary suppression is for: with it off, the same attack succeeds."""
    counts = np.array([[3, 40], [50, 60]])
    table = np.vstack([counts, counts.sum(axis=0)])
    naive = {
        (r, c): None if is_small(table)[r, c] else int(v) for (r, c), v in np.ndenumerate(table)
    }
    least, most = attack(naive, [43, 110], 2)[0, 0]
    assert least == pytest.approx(3)
    assert most == pytest.approx(3)
    assert published_cells(counts)[0, 1] is None


def test_a_site_that_knows_its_own_counts_learns_no_more() -> None:
    """Of two sites, each could subtract itself from the totals: the totals are hidden too."""
    published = published_cells(np.array([[3, 40], [50, 60]]))
    assert published[2, 0] is None
    assert published[2, 1] is None
    three = published_cells(np.array([[3, 140], [50, 60], [70, 80]]))
    assert three[2, 1] is None or three[3, 1] is None


@pytest.mark.parametrize(("count", "shown"), [(0, True), (1, False), (10, False), (11, True)])
def test_both_sides_of_the_bound(count, shown) -> None:
    counts = np.array([[count, 500, 500], [400, 500, 500]])
    assert (published_cells(counts)[0, 0] == count) is shown
    assert (published_cells(counts)[0, 0] is None) is not shown


def test_a_table_without_small_counts_is_shown_whole() -> None:
    assert not hidden_cells(np.array([[11, 0, 30], [12, 20, 0]])).any()


def test_a_row_of_ten_has_no_place() -> None:
    with pytest.raises(ValueError, match="fewer than 11"):
        hidden_cells(np.array([[10, 0]]))
    assert not hidden_cells(np.array([[11, 0]])).any()


def lines(table: CohortTable, variable: str) -> dict[tuple[str, str | None], int | None]:
    return {(r.category, r.site): r.count for r in table.rows if r.variable == variable}


def test_sites_add_up_and_small_ones_stay_out_of_the_totals() -> None:
    table = merge_cohorts(
        {"a": count_cohort(site(20, 30)), "b": count_cohort(site(40, 25, 15)),
         "tiny": count_cohort(site(10, 0)), "none": count_cohort([])}
    )  # fmt: skip
    assert table.sites == {"a": 50, "b": 80}
    assert table.left_out == 1
    found = lines(table, "IDH mutation")
    assert found["mutant", None] == 60  # without the ten of the small site
    assert found["unknown", "b"] == 15
    assert found["wildtype", "a"] == 30
    assert {r.site for r in table.rows} == {"a", "b", None}


def test_a_federation_of_small_sites_publishes_nothing() -> None:
    table = merge_cohorts({"a": count_cohort(site(3, 4))})
    assert table == CohortTable({}, 1, ())


@pytest.mark.parametrize(
    ("age", "band"),
    [(39.99, "30-39"), (40.0, "40-49"), (0.5, "0-9"), (89.9, "80-89"), (90.0, "90+"),
     (104.0, "90+"), (UNKNOWN, "unknown")],
)  # fmt: skip
def test_age_bands(age, band) -> None:
    assert age_band(case(1, age=age)) == band
    assert band in next(v for v in VARIABLES if v.name == "age").categories


def test_sums_cross_as_they_are() -> None:
    cohort = count_cohort(site(3, 9, 2))
    again = read_cohort("a", pack_cohort(cohort, "a"), 20)
    assert again == cohort
    assert sum(again.counts["scanner"].values()) == 14


def test_sums_name_no_patient() -> None:
    data = pack_cohort(count_cohort([case(7315001)]), "a")
    assert b"7315001" not in data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "b"}, "of site 'b'"), ({"form": "x"}, "'x'"), ({"cases": 21}, "cases is 21, expected .* 0 to 20"),
        ({"cases": -1}, "cases is -1"), ({"cases": True}, "cases is True"),
        ({"counts": {}}, "counts lacks IDH"),
        ({"sex": {"F": 13}}, "adds up to 13"), ({"sex": {"X": 14}}, "categories"),
        ({"sex": {"F": -1, "M": 15}}, r"sex\.F is -1"), ({"sex": {"F": 14.0}}, r"sex\.F is 14\.0"),
        ({"scanner": {"x" * 201: 14}}, "scanner is .* at most 200 characters"),
    ],
)  # fmt: skip
def test_sums_that_cannot_be_are_refused(change, message) -> None:
    cohort = count_cohort(site(3, 9, 2))
    note = {"form": "cohort-1", "site": "a", "cases": 14, "counts": dict(cohort.counts)}
    for key, value in change.items():
        if key in note:
            note[key] = value
        else:
            note["counts"][key] = value
    with pytest.raises(UpdateError, match=message):
        read_cohort("a", pack({}, note), 20)
