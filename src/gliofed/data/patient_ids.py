"""Normalises patient ids, so that they can be compared between hospitals.

sub-TCGAFGA60K, TCGA-FG-A60K, tcga_fg_a60k-01A  ->  TCGA-FG-A60K
UCSF-PDGM-004, ucsf_pdgm_0004                   ->  UCSFPDGM4
1-23 and 12-3 stay different                        ->  1-23, 12-3
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from gliofed.errors import DataError

# TCGA barcode: project, tissue source site, participant; sample and aliquot parts may follow.
_TCGA = re.compile(
    r"^TCGA[^A-Z0-9]*([A-Z0-9]{2})[^A-Z0-9]*([A-Z0-9]{4})([^A-Z0-9].*|\d{2}[A-Z].*)?$"
)
_PREFIX = re.compile(r"^(SUB|SUBJECT|PATIENT|PAT|PT)[^A-Z0-9]+(?=[A-Z0-9])")
_RUN = re.compile(r"[^\W\d_]+|\d+")
MAPPING = "name_mapping.csv"


def normalise_id(text: str) -> str:
    """The normal form of a patient's id: capitals, no known prefix, punctuation or zero padding.

    A prefix is `sub-`, `subject`, `patient`, `pat` or `pt` before punctuation. A TCGA barcode
    keeps its zeros, which are significant. Raises DataError for an id without a letter or
    digit.
    """
    plain = unicodedata.normalize("NFKC", text).strip().upper()
    plain = _PREFIX.sub("", plain)
    barcode = _TCGA.match(plain)
    if barcode:
        return f"TCGA-{barcode[1]}-{barcode[2]}"
    out = ""
    for run in _RUN.findall(plain):
        part = (run.lstrip("0") or "0") if run.isdecimal() else run
        out += f"-{part}" if out[-1:].isdecimal() and part[0].isdecimal() else part
    if not out:
        raise DataError(f"patient id {text!r} has no letter or digit; give every patient an id")
    return out


def known_ids(patient: str, mapping: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Every normal id of a patient: the given one, and its synonyms in `mapping`."""
    normalised = normalise_id(patient)
    return mapping.get(normalised, frozenset()) | {normalised}


def read_mapping(path: Path) -> Mapping[str, frozenset[str]]:
    """A BraTS `name_mapping.csv`: normal id to all normal ids of the same row.

    Every column whose name ends in `ID` is read; empty and `NA` cells are skipped. Raises
    DataError: no such column pair, or not UTF-8.
    """
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    out: dict[str, frozenset[str]] = {}
    for line, row in enumerate(rows, start=2):
        columns = [k for k in row if k and k.strip().upper().endswith("ID")]
        if len(columns) < 2:
            raise DataError(
                f"{path}:{line}: expected at least two columns whose names end in ID, as "
                f"BraTS_2020_subject_ID and TCGA_TCIA_subject_ID; found {list(row)}"
            )
        cells = [(row[k] or "").strip() for k in columns]
        same = frozenset(normalise_id(c) for c in cells if c.upper() not in ("", "NA", "N/A"))
        for name in same:
            out[name] = out.get(name, frozenset()) | same
    return out
