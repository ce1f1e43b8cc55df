"""Suppression of small counts so that they cannot be derived from published totals.

A count from 1 to 10 is suppressed, as the US Centers for Medicare and Medicaid Services require.
Further cells are suppressed until no reader can narrow such a count down from the published cells
and totals: complementary suppression (Cox 1980, JASA 75:377). It is audited by the linear programme
that such a reader would solve (Fischetti and Salazar 2001, Management Science 47:1008). Readers are
the public, and each site, which has its own row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

SMALLEST_SHOWN: Final = 11
WIDTH: Final = SMALLEST_SHOWN - 2
"""Minimum distance between the smallest and the largest possible value of a suppressed cell."""


def is_small(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Counts from 1 to below `SMALLEST_SHOWN`."""
    return (counts > 0) & (counts < SMALLEST_SHOWN)


def hidden_cells(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The cells of a table, and of its column totals, to suppress.

    counts: (sites, categories); the sum of each row is public and at least `SMALLEST_SHOWN`.
    Returns (sites + 1, categories), the last row for the column totals. Given all published cells,
    a suppressed count from 1 to 10 can have every value from 1 to 10, and any other suppressed
    cell a range of values that is as wide. This also holds for each site, which has its own row.
    Raises ValueError where a row sums to less than `SMALLEST_SHOWN`.
    """
    if counts.size and counts.sum(axis=1).min() < SMALLEST_SHOWN:
        raise ValueError(f"a row of fewer than {SMALLEST_SHOWN} cases may not be published")
    table = np.vstack([counts, counts.sum(axis=0)])
    hidden = is_small(table)
    safe: set[tuple[int, int, int | None]] = set()
    while (unsafe := _first_unsafe(table, hidden, safe)) is not None:
        cell = _complement(table, hidden, unsafe)
        if cell is None:
            return np.ones_like(hidden)
        hidden[cell] = True
    return hidden


def _seen_by(hidden: NDArray[np.bool_], site: int | None) -> NDArray[np.bool_]:
    """Cells hidden from a reader: the public (None), or a site, which has its own row."""
    seen = hidden.copy()
    if site is not None:
        seen[site] = False
    return seen


def _first_unsafe(
    table: NDArray[np.int64], hidden: NDArray[np.bool_], safe: set[tuple[int, int, int | None]]
) -> tuple[int, int, int | None] | None:
    """The first (row, column, reader) whose hidden cell can be narrowed down too far, or None.

    safe: those already found safe. They stay safe: hiding more cells never narrows a range.
    """
    sites = len(table) - 1
    readers: tuple[int | None, ...] = (None, *range(sites)) if sites > 1 else (None,)
    for reader in readers:
        seen = _seen_by(hidden, reader)
        for row, column in zip(*(w.tolist() for w in np.nonzero(seen)), strict=True):
            cell = (row, column, reader)
            if cell in safe or (reader is not None and row == sites):
                continue
            low, high = bounds(table, seen, row, column)
            narrow = high - low < WIDTH
            if is_small(table)[row, column]:
                narrow = narrow or low > 1 or high < SMALLEST_SHOWN - 1
            if narrow:
                return cell
            safe.add(cell)
    return None


def _complement(
    table: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    unsafe: tuple[int, int, int | None],
) -> tuple[int, int] | None:
    """The next cell to hide: the smallest count in the row or column with fewer hidden cells.

    unsafe: (row, column, reader). Cells whose crossing row or column already has hidden cells come
    first; zeros, which a reader may guess, come last. None where every cell is hidden.
    """
    row, column, reader = unsafe
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
    """The smallest and largest value of a hidden cell that agree with the published cells.

    table: (sites + 1, categories), column totals last; row sums are published. The constraints
    are those of a transport problem, so the bounds are integers and are attained.
    """
    cells = list(zip(*np.nonzero(hidden), strict=True))
    lines = [[(r, c, 1) for c in range(table.shape[1])] for r in range(table.shape[0] - 1)]
    last = table.shape[0] - 1
    lines += [[*((r, c, 1) for r in range(last)), (last, c, -1)] for c in range(table.shape[1])]
    index = {(int(r), int(c)): n for n, (r, c) in enumerate(cells)}
    matrix, right = np.zeros((len(lines), len(cells))), np.zeros(len(lines))
    for number, line in enumerate(lines):
        for r, c, sign in line:
            if (r, c) in index:
                matrix[number, index[r, c]] = sign
            right[number] += sign * int(table[r, c]) if (r, c) in index else 0
    goal = np.zeros(len(cells))
    goal[index[row, column]] = 1
    least = linprog(goal, A_eq=matrix, b_eq=right)
    most = linprog(-goal, A_eq=matrix, b_eq=right)
    greatest = np.inf if most.status == 3 else round(-most.fun, 6)  # 3: unbounded
    return round(float(least.fun), 6), float(greatest)
