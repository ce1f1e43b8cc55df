"""The integrated type of WHO CNS5 (2021), as far as IDH, 1p/19q and grade determine it.

Louis et al. 2021, Neuro-Oncology 23:1231: an IDH-mutant tumour is an oligodendroglioma with
1p/19q co-deletion and an astrocytoma without. An IDH-wildtype one is a glioblastoma by its
histology (microvascular proliferation or necrosis, here: grade 4) or, regardless of its histology,
by a TERT promoter mutation, EGFR amplification or gain of chromosome 7 with loss of 10. The model
predicts none of the latter, so that IDH-wildtype of grade 2 or 3 is not determinable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.joint_decision import JOINT, allowed_cells
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.markers import BY_ID
from gliofed.types import UNKNOWN, Labels, Unknown

OLIGODENDROGLIOMA: Final = "Oligodendroglioma, IDH-mutant and 1p/19q-codeleted"
ASTROCYTOMA: Final = "Astrocytoma, IDH-mutant"
GLIOBLASTOMA: Final = "Glioblastoma, IDH-wildtype"
NOT_DETERMINABLE: Final = "not determinable"
OUTCOMES: Final = (OLIGODENDROGLIOMA, ASTROCYTOMA, GLIOBLASTOMA, NOT_DETERMINABLE)
NEEDS_MORE: Final = (
    "IDH-wildtype of grade 2 or 3 needs the TERT promoter, EGFR and chromosomes 7 and 10"
)
UNSEEN: Final = (
    "Research use only. The model does not assess CDKN2A/B, the TERT promoter, EGFR amplification, "
    "+7/-10, and H3. An IDH-mutant astrocytoma with homozygous CDKN2A/B deletion is of CNS WHO "
    "grade 4 whatever its histology; an IDH-wildtype diffuse glioma of grade 2 or 3 with a TERT "
    "promoter mutation, EGFR amplification or +7/-10 is a glioblastoma of grade 4."
)


@dataclass(frozen=True)
class IntegratedType:
    """One case's type. answer: one of `OUTCOMES`. reason: why it is not determinable; else empty.

    probabilities: of each of `OUTCOMES`, summing to 1; None if a marker's is not finite. The last
    is that of IDH-wildtype of grade 2 or 3, not a measure of uncertainty. open: outcomes that the
    sets do not exclude. unseen: caution that must be shown with the type.
    """

    answer: str
    probabilities: Mapping[str, float] | None
    open: tuple[str, ...]
    reason: str
    unseen: str = UNSEEN


def outcome_probabilities(cells: Values) -> Values:
    """(n, 2, 2, 3) of `joint_decision.joint_probabilities` to (n, 4), in the order of
    `OUTCOMES`."""
    return np.stack([np.where(_where(o), cells, 0).sum((1, 2, 3)) for o in OUTCOMES], axis=1)


def integrated_type(
    cells: Values, sets: Mapping[str, NDArray[np.bool_]], least: float
) -> IntegratedType:
    """cells: (2, 2, 3), one case's joint. sets: of each marker of `JOINT`, (classes,).

    Not determinable if the sets allow no outcome or several, if the only one allowed is not the
    likeliest, or if the likeliest has a probability below `least`. With a miss rate of alpha for
    each set, a single allowed outcome is wrong in at most 3 alpha of all cases (Bonferroni), if the
    sets have their target coverage.
    """
    outcomes = outcome_probabilities(cells[None])[0]
    idh, codel, grade = (sets[m] for m in JOINT)
    reach = allowed_cells() & idh[:, None, None] & codel[None, :, None] & grade[None, None, :]
    possible = tuple(o for o in OUTCOMES if (reach & _where(o)).any())
    if not np.isfinite(outcomes).all():
        return IntegratedType(NOT_DETERMINABLE, None, possible, "a probability is not finite")
    found = dict(zip(OUTCOMES, outcomes.tolist(), strict=True))
    likeliest = OUTCOMES[int(outcomes.argmax())]
    reason = _undetermined_reason(sets, possible, likeliest, found[likeliest], least)
    return IntegratedType(NOT_DETERMINABLE if reason else likeliest, found, possible, reason)


def reference_type(labels: Labels) -> str | Unknown:
    """The outcome by true labels, for scoring; UNKNOWN if they do not determine it.

    Grade is not used for an IDH-mutant tumour, nor 1p/19q for an IDH-wildtype one. IDH-wildtype
    with co-deletion, which CNS5 excludes, is UNKNOWN.
    """
    idh, codel, grade = (labels[m] for m in JOINT)
    if idh == "mutant" and not isinstance(codel, Unknown):
        return OLIGODENDROGLIOMA if codel == "codeleted" else ASTROCYTOMA
    if idh != "wildtype" or isinstance(grade, Unknown) or codel == "codeleted":
        return UNKNOWN
    return GLIOBLASTOMA if grade == "4" else NOT_DETERMINABLE


def _where(outcome: str) -> NDArray[np.bool_]:
    """The allowed cells of an outcome; together the four are all allowed cells."""
    mutant, codeleted, fourth = (
        np.array(BY_ID[m].classes) == name
        for m, name in zip(JOINT, ("mutant", "codeleted", "4"), strict=True)
    )
    m, c, g = mutant[:, None, None], codeleted[None, :, None], fourth[None, None, :]
    cells = {
        OLIGODENDROGLIOMA: m & c,
        ASTROCYTOMA: m & ~c,
        GLIOBLASTOMA: ~m & g,
        NOT_DETERMINABLE: ~m & ~g,
    }
    own: NDArray[np.bool_] = cells[outcome] & allowed_cells()
    return own


def _undetermined_reason(
    sets: Mapping[str, NDArray[np.bool_]],
    possible: tuple[str, ...],
    likeliest: str,
    probability: float,
    least: float,
) -> str:
    empty = [BY_ID[m].title for m in JOINT if not sets[m].any()]
    if empty:
        return f"every class of {empty[0]} is ruled out"
    if not possible:
        return "the classes of IDH, 1p/19q and grade that are not ruled out contradict each other"
    if len(possible) > 1:
        named = [NEEDS_MORE if o == NOT_DETERMINABLE else o for o in possible]
        return f"several types are possible: {'; '.join(named)}"
    if likeliest != possible[0]:
        return f"only {possible[0]} is not ruled out, but the most probable type is {likeliest}"
    if likeliest == NOT_DETERMINABLE:
        return NEEDS_MORE
    low = f"{likeliest} has a probability of {probability:.2f}, below {least:g}"
    return low if probability < least else ""
