"""Joint probabilities of IDH, 1p/19q and grade that are consistent with WHO CNS5.

A network with one head a marker may predict IDH-wildtype with 1p/19q co-deletion, a combination
that WHO CNS5 excludes. Excluded cells have probability 0 here, and the marginals are recomputed.

Removing cells and rescaling the product of the marginals would change every calibrated marginal: 60
% mutant and 50 % codeleted would become 75 % mutant, although all codeleted tumours can be among
the 60 %. The joint here is instead the q on the allowed cells that maximises the sum over markers m
and classes c of p_m(c) log q_m(c), plus `PRIOR_WEIGHT` times the sum over cells of s log q: it is
closest to the marginals p_m by Kullback-Leibler divergence. The small weight of the rescaled
product s selects one of the many q with these marginals and keeps q above 0. It is computed by
repeated multiplication (EM; Dempster et al. 1977, JRSS B 39:1). If the product is 0 on the excluded
cells, q is the product.
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
    """A combination that WHO CNS5 excludes. grade: None for every grade."""

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
    """(2, 2, 3), read-only: true for the possible cells of `JOINT`."""
    cells = np.ones(tuple(len(BY_ID[m].classes) for m in JOINT), bool)
    for row in EXCLUDED:
        own = BY_ID["idh"].classes.index(row.idh), BY_ID["codel_1p19q"].classes.index(row.codel)
        grades = BY_ID["grade"].classes
        cells[(*own, slice(None) if row.grade is None else grades.index(row.grade))] = False
    cells.flags.writeable = False
    return cells


def cell_counts(labels: Sequence[Labels]) -> Counts:
    """(2, 2, 3): counts of cases with all three labels. Counts of several sites add."""
    counts = np.zeros(allowed_cells().shape, np.int64)
    for own in labels:
        if all(m in own.values for m in JOINT):
            counts[tuple(BY_ID[m].classes.index(own.values[m]) for m in JOINT)] += 1
    return counts


def joint_probabilities(
    marginals: Mapping[str, Probabilities], counts: Counts | None = None
) -> Values:
    """(n, 2, 2, 3), 0 on excluded cells, summing to 1; NaN for a case with a NaN.

    marginals: those of `JOINT`, (n, classes). counts: `cell_counts` of all sites, for the
    dependence of the three; each cell of s is then multiplied by its observed frequency over that
    expected from its marginals. Counts of excluded cells are ignored.
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
