"""CPTAC-GBM, IvyGAP and REMBRANDT: TCIA collections whose prepared scans are those of BraTS.

Collections, licences and citations:

    CPTAC-GBM   https://www.cancerimagingarchive.net/collection/cptac-gbm/   CC BY 3.0
                National Cancer Institute CPTAC 2018, doi:10.7937/k9/tcia.2018.3rje41q1
    IvyGAP      https://www.cancerimagingarchive.net/collection/ivygap/      CC BY 3.0
                Shah et al. 2016, doi:10.7937/K9/TCIA.2016.XLwaN6nL; Puchalski et al. 2018,
                Science 360:660
    REMBRANDT   https://www.cancerimagingarchive.net/collection/rembrandt/   CC BY 3.0
                Scarpace et al. 2019, doi:10.7937/K9/TCIA.2015.588OZUZB; Gusev et al. 2018,
                Scientific Data 5:180158; `data/formats/rembrandt.py` reads its own layout

The folder is one of BraTS, as `data/formats/brats.py` describes it, with its mapping table
(BraTS2021_MappingToTCIA.csv or BraTS2023_2017_GLI_Mapping.csv), which says which case is whose.
Cases of other collections are left out and counted. CPTAC-GBM and IvyGAP are of glioblastoma:
grade 4. MGMT is the mapping's; all else comes from a `labels.csv` of yours, or is unknown.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gliofed.data.audit import DatasetReading, MappedValue
from gliofed.data.formats import brats
from gliofed.data.formats.layout import CandidateCase, build_reading


def read_cptac(root: Path, site: str) -> DatasetReading:
    """The cases of CPTAC-GBM."""
    return _read("cptac_gbm", "CPTAC-GBM", "4", root, site)


def read_ivygap(root: Path, site: str) -> DatasetReading:
    """The cases of IvyGAP."""
    return _read("ivygap", "IvyGAP", "4", root, site)


def read_rembrandt(root: Path, site: str) -> DatasetReading:
    """The cases of REMBRANDT."""
    return _read("rembrandt", "REMBRANDT", "", root, site)


def _read(format_id: str, collection: str, grade: str, root: Path, site: str) -> DatasetReading:
    """One collection's cases; `grade` where the collection is of one grade, else "".

    Raises DataError as `brats.read` does, and where there is no mapping with collections.
    """
    contents = brats.scan_folder(root)
    if not any(s.collection for s in contents.scans):
        raise brats.missing_mapping_error(root, collection)
    patients, more = brats.read_user_labels(root)
    candidates: list[CandidateCase] = []
    for scan in contents.scans:
        item = brats.to_candidate(scan, site, patients)
        if scan.collection.casefold() != collection.casefold():
            name = scan.collection or "no collection in the mapping"
            item = replace(item, refused=item.refused or f"of another collection ({name})")
        elif grade:
            labels = {"grade": grade, **patients.get(scan.patient, {})}
            item = replace(item, values={**item.values, **labels})
        candidates.append(item)
    candidates += [CandidateCase(row=r, id=r, patient=r, site=site) for r in contents.rows]
    mapped = (*contents.mapped, *more)
    if grade:
        count = sum(not f.refused for f in candidates if f.images)
        mapped += (
            MappedValue("(the set is of glioblastoma)", "(every case)", "grade", grade, count),
        )
    return build_reading(format_id, root, candidates, mapped, contents.notes)
