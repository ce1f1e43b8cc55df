"""How far a hidden count can be narrowed down from the published counts and sums.

All tables that agree with them differ by circuits of hidden cells, alternately up and down: flows
in the residual network of a transport problem (Gusfield 1988, SIAM J Comput 17:552). The range of
a cell is what the largest flow changes it by (Ford and Fulkerson 1956, Can J Math 8:399).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]


@dataclass(frozen=True)
class CellRange:
    """The smallest and the largest value. rows: whose cells change on the way, besides its own."""

    low: int
    high: int
    rows: frozenset[int]

    @property
    def width(self) -> int:
        """Of the range."""
        return self.high - self.low


def cell_range(
    table: NDArray[np.int64],
    hidden: NDArray[np.bool_],
    cell: Cell,
    wanted: tuple[int, int] | None = None,
) -> CellRange:
    """The range of a hidden cell.

    table: (sites + 1, categories), column totals last; row sums are published. hidden: cells that
    the reader does not see. wanted: how far down and up to look; without it, as far as it goes.
    """
    value, total = int(table[cell]), cell[0] == len(table) - 1
    furthest = int(table[-1].sum())
    down, up = wanted or (value, furthest)
    # a total is the negative of a cell that balances its column: it rises where that cell falls
    less, more = _Residual(table, hidden, cell), _Residual(table, hidden, cell)
    lowered = (less.raise_cell if total else less.lower_cell)(min(down, value))
    raised = (more.lower_cell if total else more.raise_cell)(up)
    rows = frozenset((less.rows | more.rows) - {cell[0], len(table) - 1})
    return CellRange(value - lowered, value + raised, rows)


class _Residual:
    """What the hidden cells besides `cell` can still fall by; each can rise without bound."""

    def __init__(self, table: NDArray[np.int64], hidden: NDArray[np.bool_], cell: Cell) -> None:
        self._cell, self._rises = cell, hidden.copy()
        self._rises[cell] = False
        self._falls = np.where(self._rises, table.astype(np.float64), 0.0)
        self._falls[-1, self._rises[-1]] = np.inf
        self.rows: set[int] = set()

    def raise_cell(self, wanted: int) -> int:
        """By how much the cell can rise, at most `wanted`."""
        return self._push(wanted, from_row=True)

    def lower_cell(self, wanted: int) -> int:
        """By how much the cell can fall, at most `wanted`; its own bound at 0 is the caller's."""
        return self._push(wanted, from_row=False)

    def _push(self, wanted: int, from_row: bool) -> int:
        pushed = 0
        while pushed < wanted and (path := self._path(from_row)):
            size = min(wanted - pushed, *(self._falls[c] for c, rises in path if not rises))
            for cell, rises in path:
                self._falls[cell] += size if rises else -size
                self.rows.add(cell[0])
            pushed += int(size)
        return pushed

    def _path(self, from_row: bool) -> list[tuple[Cell, bool]]:
        """The cells of a shortest circuit through the cell, and whether each rises; empty without
        one."""
        row, column = self._cell
        row_before = np.full(len(self._falls), -1)
        column_before = np.full(self._falls.shape[1], -1)
        frontier = np.array([row if from_row else column])
        rows_next = not from_row
        (row_before if from_row else column_before)[frontier] = frontier
        while len(frontier) and (column_before[column] if from_row else row_before[row]) < 0:
            if rows_next:
                reached = self._rises[:, frontier]
                new = np.flatnonzero(reached.any(1) & (row_before < 0))
                row_before[new] = frontier[reached[new].argmax(1)]
            else:
                reached = self._falls[frontier]
                new = np.flatnonzero((reached > 0).any(0) & (column_before < 0))
                column_before[new] = frontier[reached[:, new].argmax(0)]
            frontier, rows_next = new, not rows_next
        return self._back(row_before, column_before, from_row)

    def _back(
        self, row_before: NDArray[np.int64], column_before: NDArray[np.int64], from_row: bool
    ) -> list[tuple[Cell, bool]]:
        row, column = self._cell
        path: list[tuple[Cell, bool]] = []
        if (column_before[column] if from_row else row_before[row]) < 0:
            return path
        rises = not from_row  # a circuit enters a column by a fall, and a row by a rise
        while True:
            if rises:
                column = int(row_before[row])
            else:
                row = int(column_before[column])
            path.append(((row, column), rises))
            if rises is not from_row and self._starts(row, column, from_row):
                return path
            rises = not rises

    def _starts(self, row: int, column: int, from_row: bool) -> bool:
        return row == self._cell[0] if from_row else column == self._cell[1]
