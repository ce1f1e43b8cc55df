"""IDH, 1p/19q and grade decided together, so that no answer contradicts WHO CNS5.

A network with one head a marker may call a tumour IDH-wildtype and 1p/19q-codeleted, which WHO
CNS5 does not know. Such cells have probability 0 here, and the marginals are made anew.

Leaving out cells and rescaling the product of the marginals would move every marginal, calibrated
as they are: with 60 % mutant and 50 % codeleted, that gives 75 % mutant, though all codeleted
tumours may well be among the 60 %. The joint here is instead the q on the allowed cells with the
greatest sum over markers m and classes c of p_m(c) log q_m(c), plus `PRIOR_WEIGHT` times the sum
over cells of s log q: as near as can be to the marginals p_m in Kullback and Leibler's sense, and
a little to the rescaled product s, which decides among the many q that have these marginals and
keeps q off 0. Repeated multiplication finds it (EM; Dempster et al. 1977, JRSS B 39:1). Where the
product has nothing on forbidden cells, q is the product and nothing changes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.probability_bins import Counts
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.metrics.discrimination import Probabilities
from gliofed.markers import BY_ID, CNS5
from gliofed.types import Labels

JOINT: Final = ("idh", "codel_1p19q", "grade")
"""The axes of every joint array, classes in the marker table's order."""
PRIOR_WEIGHT: Final = 0.1
SMOOTH: Final = 1.0
"""Added to the count of every allowed cell."""
STEPS: Final = 200
_LEAST: Final = 1e-12


@dataclass(frozen=True)
class ExcludedCombination:
    """A combination that WHO CNS5 does not know. grade: None for every grade."""

    idh: str
    codel: str
    grade: str | None
    reason: str
    source: str


EXCLUDED: Final = (
    ExcludedCombination(
        "wildtype", "codeleted", None,
        "whole-arm 1p/19q co-deletion defines oligodendroglioma together with an IDH mutation; "
        "there is no IDH-wildtype type with it",
        CNS5,
    ),
    ExcludedCombination(
        "mutant", "codeleted", "4",
        "oligodendroglioma is of CNS WHO grade 2 or 3; older classifications had it otherwise",
        CNS5,
    ),
)  # fmt: skip


@functools.cache
def allowed_cells() -> NDArray[np.bool_]:
    """(2, 2, 3), read-only: the cells of `JOINT` that are possible."""
    cells = np.ones(tuple(len(BY_ID[m].classes) for m in JOINT), bool)
    for row in EXCLUDED:
        own = BY_ID["idh"].classes.index(row.idh), BY_ID["codel_1p19q"].classes.index(row.codel)
        grades = BY_ID["grade"].classes
        cells[(*own, slice(None) if row.grade is None else grades.index(row.grade))] = False
    cells.flags.writeable = False
    return cells


def cell_counts(labels: Sequence[Labels]) -> Counts:
    """(2, 2, 3): the cases of which all three are known. Counts of several sites add."""
    counts = np.zeros(allowed_cells().shape, np.int64)
    for own in labels:
        if all(m in own.values for m in JOINT):
            counts[tuple(BY_ID[m].classes.index(own.values[m]) for m in JOINT)] += 1
    return counts


def joint_probabilities(
    marginals: Mapping[str, Probabilities], counts: Counts | None = None
) -> Values:
    """(n, 2, 2, 3), 0 on forbidden cells, summing to 1; NaN for a case with a NaN.

    marginals: those of `JOINT`, (n, classes). counts: as `cell_counts` over all sites, for how
    the three go together; each cell of s is then weighed by how much more often it occurs than
    its marginals alone would have it. Those that are forbidden are not read.
    """
    found = [np.maximum(marginals[m], _LEAST) for m in JOINT]
    start = np.einsum("na,nb,nc->nabc", *found) * allowed_cells()
    if counts is not None:
        start = start * _lift(counts)
    start = start / start.sum((1, 2, 3), keepdims=True)
    idh, codel, grade = found
    q = start
    for _ in range(STEPS):
        nearer = (
            (idh / q.sum((2, 3)))[:, :, None, None]
            + (codel / q.sum((1, 3)))[:, None, :, None]
            + (grade / q.sum((1, 2)))[:, None, None, :]
        )
        q = (q * nearer + PRIOR_WEIGHT * start) / (len(JOINT) + PRIOR_WEIGHT)
    whole: Values = q / q.sum((1, 2, 3), keepdims=True)
    return whole


def marginal_probabilities(cells: Values) -> dict[str, Probabilities]:
    """(n, 2, 2, 3) to the (n, classes) of each marker of `JOINT`."""
    return {
        "idh": cells.sum((2, 3)),
        "codel_1p19q": cells.sum((1, 3)),
        "grade": cells.sum((1, 2)),
    }


def _lift(counts: Counts) -> Values:
    table = (counts + SMOOTH) * allowed_cells()
    table = table / table.sum()
    alone = np.einsum("a,b,c->abc", table.sum((1, 2)), table.sum((0, 2)), table.sum((0, 1)))
    lift: Values = table / alone
    return lift
