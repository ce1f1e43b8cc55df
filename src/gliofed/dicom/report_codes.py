"""The codes of a report: published codes if two public sources agree on them, else own codes.

Own codes have the designator 99GLIOFED. The meaning of a code never changes: a new meaning gets a
new code, and `VERSION` is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from gliofed.calibration.cns5 import ASTROCYTOMA, GLIOBLASTOMA, NOT_DETERMINABLE, OLIGODENDROGLIOMA

SCHEME: Final = "99GLIOFED"
VERSION: Final = "1"


def _own(code: str, meaning: str) -> Code:
    return Code(code, SCHEME, meaning)


def scheme() -> CodingSchemeIdentificationItem:
    """Identification of the own coding scheme in a file."""
    return CodingSchemeIdentificationItem(
        SCHEME, name="gliofed report", version=VERSION, responsible_organization="gliofed"
    )


CAUTION: Final = codes.DCM.Comment
PROCEDURE: Final = codes.LN.BrainMRI
VOLUME: Final = codes.SCT.Volume
VOXELS: Final = codes.DCM.SumOfSegmentedVoxelMethodForVolume
ML: Final = Code("ml", "UCUM", "milliliter")
ONE: Final = codes.UCUM.NoUnits
NOT_A_NUMBER: Final = codes.DCM.NotANumber
YES: Final = codes.SCT.Yes
NO: Final = codes.SCT.No
EVALUATIONS: Final = Code("C0034375", "UMLS", "Qualitative Evaluations")
QUALITY: Final = codes.DCM.QualityFinding

MARKER: Final[Mapping[str, Code]] = {
    "idh": _own("IDH", "IDH mutation status"),
    "codel_1p19q": _own("CODEL", "1p/19q co-deletion status"),
    "mgmt": _own("MGMT", "MGMT promoter methylation status"),
    "grade": _own("GRADE", "CNS WHO grade"),
}
"""By marker id; the subject of a group of measurements, independent of the result."""
CLASS: Final[Mapping[str, Mapping[str, Code]]] = {
    "idh": {
        "wildtype": Code("C62195", "NCIt", "Wild Type"),
        "mutant": Code("C18093", "NCIt", "Gene Mutation"),
    },
    "codel_1p19q": {
        "intact": _own("CODEL-INTACT", "1p/19q intact"),
        "codeleted": Code("C79099", "NCIt", "1p/19q Codeletion"),
    },
    "mgmt": {
        "unmethylated": _own("MGMT-UNMETH", "MGMT promoter unmethylated"),
        "methylated": _own("MGMT-METH", "MGMT promoter methylated"),
    },
    "grade": {
        "2": Code("396923008", "SCT", "WHO grade II central nervous system tumor"),
        "3": Code("396924002", "SCT", "WHO grade III central nervous system tumor"),
        "4": Code("396925001", "SCT", "WHO grade IV central nervous system tumor"),
    },
}
"""By marker id and class."""
PROBABILITY: Final[Mapping[str, Mapping[str, Code]]] = {
    "idh": {
        "wildtype": _own("IDH-P-WILDTYPE", "Probability of IDH wildtype"),
        "mutant": _own("IDH-P-MUTANT", "Probability of IDH mutation"),
    },
    "codel_1p19q": {
        "intact": _own("CODEL-P-INTACT", "Probability of 1p/19q intact"),
        "codeleted": _own("CODEL-P-CODEL", "Probability of 1p/19q co-deletion"),
    },
    "mgmt": {
        "unmethylated": _own("MGMT-P-UNMETH", "Probability of MGMT promoter unmethylated"),
        "methylated": _own("MGMT-P-METH", "Probability of MGMT promoter methylated"),
    },
    "grade": {
        "2": _own("GRADE-P-2", "Probability of CNS WHO grade 2"),
        "3": _own("GRADE-P-3", "Probability of CNS WHO grade 3"),
        "4": _own("GRADE-P-4", "Probability of CNS WHO grade 4"),
    },
}
SET: Final = _own("SET", "Prediction set: class that is not ruled out")
NO_CLASS: Final = _own("SET-EMPTY", "No class: all are ruled out")
NO_CALIBRATION: Final = _own("SET-ABSENT", "Not given: the model has no calibration")
NOT_TRAINED: Final = _own("NOT-TRAINED", "Not trained: the model has no answer")
KEPT: Final = _own("KEPT", "Confident enough for the risk that was wished")

TYPE: Final = _own("CNS5", "Integrated type (WHO CNS5 2021)")
OUTCOME: Final[Mapping[str, Code]] = {
    OLIGODENDROGLIOMA: Code(
        "C129318", "NCIt", "Oligodendroglioma, IDH-Mutant and 1p/19q-Codeleted"
    ),
    ASTROCYTOMA: _own("CNS5-ASTRO", "Astrocytoma, IDH-mutant"),
    GLIOBLASTOMA: Code("C39750", "NCIt", "Glioblastoma, IDH-Wildtype"),
    NOT_DETERMINABLE: _own("CNS5-OPEN", "Not determinable"),
}
OUTCOME_PROBABILITY: Final[Mapping[str, Code]] = {
    OLIGODENDROGLIOMA: _own("CNS5-P-OLIGO", "Probability of oligodendroglioma"),
    ASTROCYTOMA: _own("CNS5-P-ASTRO", "Probability of astrocytoma, IDH-mutant"),
    GLIOBLASTOMA: _own("CNS5-P-GBM", "Probability of glioblastoma, IDH-wildtype"),
    NOT_DETERMINABLE: _own("CNS5-P-OPEN", "Probability of IDH-wildtype of grade 2 or 3"),
}
REASON: Final = _own("CNS5-REASON", "Why the integrated type is not determinable")
UNSEEN: Final = _own("CNS5-UNSEEN", "What the model does not see")
