"""Small counts hidden so that sums cannot bring them back.

A count from 1 to 10 is hidden (as the US Centers for Medicare and Medicaid Services ask), and so
are as many other cells as it takes that nobody who knows all published cells and totals can narrow
a hidden one down: complementary suppression (Cox 1980, JASA 75:377), audited by the linear
programme that such a reader would solve (Fischetti and Salazar 2001, Management Science 47:1008).
Readers are everybody outside, and each site, which knows its own row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

SMALLEST_SHOWN: Final = 11
WIDTH: Final = SMALLEST_SHOWN - 2
"""Each hidden cell must keep at least this distance between its least and greatest value."""


def is_small(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which counts may not be shown for their size."""
    return (counts > 0) & (counts < SMALLEST_SHOWN)


def hidden_cells(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which cells of a table to hide, its totals included.

    counts: (sites, categories); the sum of each row is public and at least `SMALLEST_SHOWN`.
    Returns (sites + 1, categories), the last row for the column totals. For all that the rest
    says, a hidden count from 1 to 10 may be anything from 1 to 10, and any other hidden one any
    value of a range as wide; of the totals, a site knows its own share besides. Raises
    ValueError where a row sums to less.
    """
    if counts.size and counts.sum(axis=1).min() < SMALLEST_SHOWN:
        raise ValueError(f"a row of fewer than {SMALLEST_SHOWN} has no place in a shown table")
    table = np.vstack([counts, counts.sum(axis=0)])
    hidden = is_small(table)
    safe: set[tuple[int, int, int | None]] = set()
    while (weak := _weakest(table, hidden, safe)) is not None:
        cell = _complement(table, hidden, *weak)
        if cell is None:
            return np.ones_like(hidden)
        hidden[cell] = True
    return hidden


def _seen_by(hidden: NDArray[np.bool_], site: int | None) -> NDArray[np.bool_]:
    """What is hidden from a reader: None, somebody outside; else a site, which knows its row."""
    seen = hidden.copy()
    if site is not None:
        seen[site] = False
    return seen


def _weakest(
    table: NDArray[np.int64], hidden: NDArray[np.bool_], safe: set[tuple[int, int, int | None]]
) -> tuple[int, int, int | None] | None:
    """The first hidden cell that some reader could narrow down too far, and that reader; or None.

    safe: (cell, reader) already judged; hiding more never narrows a range, so they stay so.
    """
    sites = len(table) - 1
    readers: tuple[int | None, ...] = (None, *range(sites)) if sites > 1 else (None,)
    for reader in readers:
        seen = _seen_by(hidden, reader)
        for row, column in zip(*(w.tolist() for w in np.nonzero(seen)), strict=True):
            place = (row, column, reader)
            if place in safe or (reader is not None and row == sites):
                continue
            low, high = bounds(table, seen, row, column)
            narrow = high - low < WIDTH
            if is_small(table)[row, column]:
                narrow = narrow or low > 1 or high < SMALLEST_SHOWN - 1
            if narrow:
                return place
            safe.add(place)
    return None


def _complement(
    table: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    row: int,
    column: int,
    reader: int | None,
) -> tuple[int, int] | None:
    """The next cell to hide: in the row or column with fewer hidden ones, the smallest count.

    A cell whose own crossing line has hidden cells already goes before one that opens a new
    line; zeros, which a reader may guess, come last.
    """
    seen = _seen_by(hidden, reader)
    along = [(row, c) for c in range(table.shape[1]) if not hidden[row, c]]
    across = [(r, column) for r in range(len(table)) if not hidden[r, column] and r != reader]

    def cost(cell: tuple[int, int]) -> tuple[bool, bool, int]:
        crossing = seen[:, cell[1]] if cell[0] == row else seen[cell[0]]
        return bool(table[cell] == 0), not crossing.any(), int(table[cell])

    first = along if seen[row].sum() <= seen[:, column].sum() else across
    choice = first or along or across
    return min(choice, key=cost) if choice else None


def bounds(
    table: NDArray[np.int64], hidden: NDArray[np.bool_], row: int, column: int
) -> tuple[float, float]:
    """The least and greatest value of a hidden cell that the published cells allow.

    table: (sites + 1, categories), column totals last; row sums are published. The constraints
    are those of a transport problem, so that these bounds are whole numbers that are reached.
    """
    cells = list(zip(*np.nonzero(hidden), strict=True))
    lines = [[(r, c, 1) for c in range(table.shape[1])] for r in range(table.shape[0] - 1)]
    last = table.shape[0] - 1
    lines += [[*((r, c, 1) for r in range(last)), (last, c, -1)] for c in range(table.shape[1])]
    place = {(int(r), int(c)): n for n, (r, c) in enumerate(cells)}
    matrix, right = np.zeros((len(lines), len(cells))), np.zeros(len(lines))
    for number, line in enumerate(lines):
        for r, c, sign in line:
            if (r, c) in place:
                matrix[number, place[r, c]] = sign
            right[number] += sign * int(table[r, c]) if (r, c) in place else 0
    goal = np.zeros(len(cells))
    goal[place[row, column]] = 1
    least = linprog(goal, A_eq=matrix, b_eq=right)
    most = linprog(-goal, A_eq=matrix, b_eq=right)
    greatest = np.inf if most.status == 3 else round(-most.fun, 6)  # 3: without bound
    return round(float(least.fun), 6), float(greatest)
