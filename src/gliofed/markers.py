"""The markers that the network predicts: one row each.

A new marker is one `Marker` in `MARKERS`; the heads, losses, label-aware merge, scores and the
report read this table and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gliofed.types import UNKNOWN, Unknown

CNS5 = "Louis et al. 2021, WHO Classification of Tumors of the CNS, Neuro-Oncology 23:1231"
ABSENT: Final = frozenset({"", "n/a", "na", "nan", "unknown", "none"})


@dataclass(frozen=True)
class Marker:
    """One predicted marker.

    classes: class names in the order of the head's logits. codes: how a BIDS `participants.tsv`
    may write each class, lower case. task_weight: its factor in the training loss.
    """

    id: str
    title: str
    classes: tuple[str, ...]
    codes: Mapping[str, str]
    definition: str
    source: str
    task_weight: float

    def parse(self, text: str) -> str | Unknown:
        """The class that `text` writes, or UNKNOWN for an empty or n/a cell.

        Raises ValueError for any other text: a value with no agreed meaning is never a class.
        """
        key = text.strip().lower()
        if key in ABSENT:
            return UNKNOWN
        if key in self.codes:
            return self.codes[key]
        raise ValueError(f"{self.id}: {text!r} is none of {sorted(self.codes)} nor n/a")


MARKERS: Final[tuple[Marker, ...]] = (
    Marker(
        id="idh",
        title="IDH mutation",
        classes=("wildtype", "mutant"),
        codes={"0": "wildtype", "wildtype": "wildtype", "wt": "wildtype",
               "1": "mutant", "mutant": "mutant", "mutated": "mutant"},
        definition="Mutation of IDH1 codon 132 or IDH2 codon 172, by sequencing or R132H stain.",
        source=CNS5,
        task_weight=2.26,
    ),
    Marker(
        id="codel_1p19q",
        title="1p/19q co-deletion",
        classes=("intact", "codeleted"),
        codes={"0": "intact", "intact": "intact", "non-codel": "intact",
               "1": "codeleted", "codeleted": "codeleted", "codel": "codeleted"},
        definition="Whole-arm loss of both 1p and 19q; with IDH mutation, oligodendroglioma.",
        source=CNS5,
        task_weight=3.38,
    ),
    Marker(
        id="mgmt",
        title="MGMT promoter methylation",
        classes=("unmethylated", "methylated"),
        codes={"0": "unmethylated", "unmethylated": "unmethylated",
               "1": "methylated", "methylated": "methylated"},
        definition="Methylation of the MGMT promoter; a predictor of response to alkylating "
        "chemotherapy, not part of the CNS5 type.",
        source="Hegi et al. 2005, NEJM 352:997; " + CNS5,
        task_weight=1.0,
    ),
    Marker(
        id="grade",
        title="WHO grade",
        classes=("2", "3", "4"),
        codes={"2": "2", "ii": "2", "3": "3", "iii": "3", "4": "4", "iv": "4"},
        definition="CNS WHO grade 2, 3 or 4, as the data set gives it (often WHO 2007 or 2016).",
        source=CNS5,
        task_weight=1.33,
    ),
)  # fmt: skip
"""Task weights of IDH, 1p/19q and grade: van der Voort et al. 2023, Neuro-Oncology 25:279."""

BY_ID: Final[Mapping[str, Marker]] = {m.id: m for m in MARKERS}
