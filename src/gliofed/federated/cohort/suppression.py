"""Suppression of small counts so that they cannot be derived from published totals.

A count from 1 to 10 is suppressed, as the US Centers for Medicare and Medicaid Services require.
Further cells are suppressed until no reader can narrow such a count down from the published cells
and totals: complementary suppression (Cox 1980, JASA 75:377). It is audited by what such
a reader could compute (Fischetti and Salazar 2001, Management Science 47:1008). Readers are the
public, and each site, which has its own row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.federated.cohort.cell_ranges import Cell, CellRange, cell_range

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
    safe = np.zeros((len(table), *table.shape), bool)
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
    table: NDArray[np.int64], hidden: NDArray[np.bool_], safe: NDArray[np.bool_]
) -> tuple[int, int, int | None] | None:
    """The first (row, column, reader) whose hidden cell can be narrowed down too far, or None.

    safe: (reader, row, column), the public last: those already found safe. They stay safe: hiding
    more cells never narrows a range. A range that changes no cell of a site's row is also that
    site's, so most cells are examined once for all readers.
    """
    sites = len(table) - 1
    readers: tuple[int | None, ...] = (None, *range(sites)) if sites > 1 else (None,)
    for reader in readers:
        seen = _seen_by(hidden, reader)
        open_cells = seen & ~safe[sites if reader is None else reader]
        if reader is not None:
            open_cells[sites] = False
        for row, column in zip(*(w.tolist() for w in np.nonzero(open_cells)), strict=True):
            found = _wide_range(table, seen, (row, column))
            if found is None:
                return row, column, reader
            others = [r for r in range(sites + 1) if r not in found.rows or r == reader]
            safe[others, row, column] = True
    return None


def _wide_range(table: NDArray[np.int64], seen: NDArray[np.bool_], cell: Cell) -> CellRange | None:
    """The range of a cell, as far as it has to go; None where it is too narrow."""
    value = int(table[cell])
    if 0 < value < SMALLEST_SHOWN:
        found = cell_range(table, seen, cell, (value - 1, SMALLEST_SHOWN - 1 - value))
        return found if found.width == WIDTH else None
    down = cell_range(table, seen, cell, (WIDTH, 0))
    if down.width == WIDTH:
        return down
    found = cell_range(table, seen, cell, (down.width, WIDTH - down.width))
    return found if found.width == WIDTH else None


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
