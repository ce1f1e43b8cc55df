"""The table of formats that gliofed reads, and the reader of a study's sites.

A new format is a module in this package and a row in `FORMATS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats import (
    bids,
    brats,
    brats_collections,
    egd,
    lgg_1p19q,
    nnunet,
    rembrandt,
    rhuh_gbm,
    tcga,
    ucsf_pdgm,
    upenn_gbm,
    utsw,
)
from gliofed.errors import DataError, StudyError
from gliofed.study import DataConfig
from gliofed.types import Case

DatasetReader = Callable[[Path, str], DatasetReading]


@dataclass(frozen=True)
class Format:
    """One format. read: folder and site to cases and audit, without opening images.

    layout: example paths of a scan and the labels. caution: a step that the scans need before use.
    """

    id: str
    title: str
    read: DatasetReader
    layout: str
    licence: str
    citation: str
    caution: str = ""


FORMATS: Final[tuple[Format, ...]] = (
    Format(
        id="bids",
        title="One hospital as BIDS",
        read=bids.read,
        layout="sub-001/anat/sub-001_FLAIR.nii.gz, participants.tsv",
        licence="yours",
        citation="Gorgolewski et al. 2016, Scientific Data 3:160044",
    ),
    Format(
        id="ucsf_pdgm",
        title="UCSF-PDGM",
        read=ucsf_pdgm.read,
        layout="UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_FLAIR_bias.nii.gz, UCSF-PDGM-metadata_v5.csv",
        licence="CC BY 4.0",
        citation="Calabrese et al. 2022, Radiology: Artificial Intelligence 4:e220058",
    ),
    Format(
        id="upenn_gbm",
        title="UPENN-GBM",
        read=upenn_gbm.read,
        layout="images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_FLAIR.nii.gz, "
        "UPENN-GBM_clinical_info_v2.1.csv",
        licence="CC BY 4.0",
        citation="Bakas et al. 2022, Scientific Data 9:453",
    ),
    Format(
        id="egd",
        title="Erasmus Glioma Database",
        read=egd.read,
        layout="SUBJECTS/EGD-0001/FLAIR.nii.gz, metadata.json or "
        "Genetic_and_Histological_labels.csv",
        licence="the project's agreement: non-commercial, no passing on",
        citation="van der Voort et al. 2021, Data in Brief 37:107191",
        caution='scans have a skull: leave [prepare] brain at "auto" or "deepbet"',
    ),
    Format(
        id="utsw",
        title="UTSW-Glioma",
        read=utsw.read,
        layout="BT0001/brain_fl_ants.nii.gz, UTSW_Glioma_Metadata-2-1.tsv",
        licence="CC BY 4.0",
        citation="Reddy et al. 2026, Scientific Data 13:934",
    ),
    Format(
        id="tcga",
        title="TCGA-GBM and TCGA-LGG, by hospital",
        read=tcga.read,
        layout="TCGA-02-0006/TCGA-02-0006_1996.08.23_flair.nii.gz, or BraTS folders with "
        "name_mapping.csv; tcga_subtypes_ceccarelli2016.csv",
        licence="CC BY 3.0",
        citation="Bakas et al. 2017, Scientific Data 4:170117; Ceccarelli et al. 2016, Cell "
        "164:550",
    ),
    Format(
        id="brats",
        title="BraTS 2018 to 2023, adult glioma",
        read=brats.read,
        layout="BraTS2021_00000/BraTS2021_00000_flair.nii.gz, BraTS2021_MappingToTCIA.csv",
        licence="the challenge's terms; 2021 on TCIA: CC BY 4.0",
        citation="Baid et al. 2021, arXiv:2107.02314; Menze et al. 2015, IEEE TMI 34:1993",
    ),
    Format(
        id="nnunet",
        title="nnU-Net's layout",
        read=nnunet.read,
        layout="dataset.json, imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz",
        licence="yours",
        citation="Isensee et al. 2021, Nature Methods 18:203",
    ),
    Format(
        id="cptac_gbm",
        title="CPTAC-GBM among BraTS cases",
        read=brats_collections.read_cptac,
        layout="as brats, with a mapping table that names collections",
        licence="CC BY 3.0",
        citation="CPTAC 2018, doi:10.7937/k9/tcia.2018.3rje41q1",
    ),
    Format(
        id="ivygap",
        title="IvyGAP among BraTS cases",
        read=brats_collections.read_ivygap,
        layout="as brats, with a mapping table that names collections",
        licence="CC BY 3.0",
        citation="Puchalski et al. 2018, Science 360:660",
    ),
    Format(
        id="rembrandt",
        title="REMBRANDT",
        read=rembrandt.read,
        layout="900-00-5303_2005.03.24/900-00-5303_2005.03.24_flair_LPS_rSRI.nii.gz, or as brats "
        "with a mapping table that names it",
        licence="CC BY 3.0",
        citation="Sayah et al. 2022, Scientific Data 9:338; Gusev et al. 2018, Scientific Data "
        "5:180158",
        caution='scans have a skull: leave [prepare] brain at "auto" or "deepbet"',
    ),
    Format(
        id="rhuh_gbm",
        title="RHUH-GBM",
        read=rhuh_gbm.read,
        layout="RHUH-0001/0/RHUH-0001_0_flair.nii.gz, clinical_data_TCIA_RHUH-GBM.csv",
        licence="CC BY 4.0",
        citation="Cepeda et al. 2023, Data in Brief 50:109617",
        caution="the background of its scans is not 0: set it to 0 before they are prepared",
    ),
    Format(
        id="lgg_1p19q",
        title="LGG-1p19qDeletion",
        read=lgg_1p19q.read,
        layout="LGG-104/T2.nii.gz, TCIA_LGG_cases_159.csv",
        licence="CC BY 3.0",
        citation="Akkus et al. 2017, Journal of Digital Imaging 30:469",
        caution="published as DICOM with a skull: convert it first (gliofed intake); no masks",
    ),
)

BY_ID: Final[Mapping[str, Format]] = {f.id: f for f in FORMATS}
DEFAULT: Final = "bids"


def format_of(name: str) -> Format:
    """The format of this id. Raises StudyError naming the nearest."""
    if name in BY_ID:
        return BY_ID[name]
    near = difflib.get_close_matches(name, BY_ID, n=1, cutoff=0.0)[0]
    raise StudyError(
        f"unknown format {name!r}; the nearest is {near!r}; known are {', '.join(BY_ID)}"
    )


def inspect(path: Path, format_id: str = DEFAULT, site: str = "") -> DatasetReading:
    """Read one data set as a study would, opening no image: its cases and the account of them.

    format_id: a row of `FORMATS`. site: name of the hospital (default: the folder's name). Raises
    StudyError for an unknown format, DataError where the data set cannot be read.
    """
    return format_of(format_id).read(path, site or path.resolve().name)


def read_sites(data: DataConfig) -> Mapping[str, tuple[Case, ...]]:
    """Every site of a study: its name to its cases, whose `site` is that name.

    A site `set/hospital` is one hospital of the set `set`, where `[data] formats` names `set`.
    Raises StudyError for an unknown format; DataError as the formats' readers do, or where a set
    has no such hospital.
    """
    for name in data.formats.values():
        format_of(name)
    sets: dict[str, tuple[Case, ...]] = {}
    sites: dict[str, tuple[Case, ...]] = {}
    for site in dict.fromkeys((*data.train, *data.external)):
        set_name, hospital = _split_site(site, data)
        if set_name not in sets:
            reader = format_of(data.formats.get(set_name, DEFAULT)).read
            sets[set_name] = reader(data.root / set_name, set_name).cases
        cases = sets[set_name]
        if hospital:
            cases = tuple(c for c in cases if c.site == hospital)
        if not cases:
            hospitals = ", ".join(sorted({c.site for c in sets[set_name]}))
            raise DataError(
                f"{data.root / set_name}: no hospital {hospital!r}; there are {hospitals}"
            )
        sites[site] = tuple(replace(c, site=site) for c in cases)
    return sites


def _split_site(site: str, data: DataConfig) -> tuple[str, str]:
    """The data set of a site and the hospital in it, "" for the whole set."""
    set_name, _, hospital = site.rpartition("/")
    if site in data.formats or set_name not in data.formats:
        return site, ""
    return set_name, hospital
