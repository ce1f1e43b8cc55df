"""A file of sources: which published tables of features a study of hospitals reads.

name = "nine hospitals"
same_hospital = [["ucsf-pdgm", "ucsf"]]

[[sources]]
format = "upenn_gbm"
site = "upenn"
features = ["upenn-captk"]
labels = "UPENN-GBM_clinical_info_v2.1.csv"
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gliofed.errors import DataError, StudyError
from gliofed.radiomics.feature_table import FeatureTable
from gliofed.radiomics.intensity_scale import fit_intensity_scale, intensity_totals
from gliofed.radiomics.published.reading import TableReading
from gliofed.radiomics.published.tcga import read_tcga
from gliofed.radiomics.published.ucsf_pdgm import read_ucsf_pdgm
from gliofed.radiomics.published.upenn_gbm import read_upenn_gbm
from gliofed.radiomics.vocabulary import NAMES
from gliofed.settings import build, read_toml


@dataclass(frozen=True)
class SourceConfig:
    """One published set. site: its hospital; of `tcga`, hospitals are those of the barcodes.
    features: of `upenn_gbm` one folder, of `ucsf_pdgm` one file, of `tcga` one file or two."""

    format: Literal["upenn_gbm", "ucsf_pdgm", "tcga"]
    features: tuple[Path, ...]
    labels: Path
    site: str = ""


@dataclass(frozen=True)
class HospitalsConfig:
    """same_hospital: sites of one institution; each is tested without the others in training.
    grade_by_inclusion: sites whose grade is that of the set; grade is also tested without them."""

    name: str
    sources: tuple[SourceConfig, ...]
    same_hospital: tuple[tuple[str, ...], ...] = ()
    grade_by_inclusion: tuple[str, ...] = ()


@dataclass(frozen=True)
class HospitalFeatures:
    """All sources together. table: intensities on one scale. readings: in the order of the file."""

    table: FeatureTable
    readings: tuple[TableReading, ...]


def load_hospitals(path: Path) -> HospitalsConfig:
    """Read and check a file of sources; paths in it are relative to its folder.

    Raises StudyError: not such a file, an unknown key, no source, or a site without a name.
    """
    config = build(HospitalsConfig, read_toml(path, "sources"), str(path))
    if not config.sources:
        raise StudyError(f"{path}: no [[sources]]; name at least one table")
    for number, source in enumerate(config.sources, 1):
        where = f"{path}: source {number} ({source.format})"
        if bool(source.site) == (source.format == "tcga"):
            need = "has its sites from the barcodes" if source.site else "needs the hospital's name"
            raise StudyError(f"{where}: site {source.site!r}; this format {need}")
        most = 2 if source.format == "tcga" else 1
        if not 1 <= len(source.features) <= most:
            expected = "1" if most == 1 else "1 or 2"
            raise StudyError(f"{where}: {len(source.features)} features; expected {expected}")
    here = path.parent
    sources = tuple(
        dataclasses.replace(
            s,
            features=tuple((here / f).resolve() for f in s.features),
            labels=(here / s.labels).resolve(),
        )
        for s in config.sources
    )
    return dataclasses.replace(config, sources=sources)


def read_hospitals(config: HospitalsConfig) -> HospitalFeatures:
    """Read every source and bring its intensities to one scale.

    Raises DataError as the readers do, for a site of two sources, and for a site of
    `same_hospital` or `grade_by_inclusion` that is in none.
    """
    readings = tuple(_read(source) for source in config.sources)
    parts = [_scaled(r) for r in readings]
    seen: set[str] = set()
    for reading in readings:
        if both := seen & set(reading.table.sites):
            raise DataError(f"{reading.name}: {sorted(both)[0]} is a site of another source too")
        seen |= set(reading.table.sites)
    named = {s for group in (*config.same_hospital, config.grade_by_inclusion) for s in group}
    if unknown := sorted(named - seen):
        raise DataError(
            f"{config.name}: no site {unknown[0]!r}; there are: {', '.join(sorted(seen))}"
        )
    subjects = tuple(s for p in parts for s in p.subjects)
    return HospitalFeatures(
        FeatureTable(subjects, NAMES, np.concatenate([p.values for p in parts])), readings
    )


def _read(source: SourceConfig) -> TableReading:
    if source.format == "upenn_gbm":
        return read_upenn_gbm(source.features[0], source.labels, source.site)
    if source.format == "ucsf_pdgm":
        return read_ucsf_pdgm(source.features[0], source.labels, source.site)
    return read_tcga(source.features, source.labels)


def _scaled(reading: TableReading) -> FeatureTable:
    """Intensities on the common scale, by sums over the hospitals of one table."""
    table = reading.table
    totals = [intensity_totals(own.values) for own in table.by_site()]
    if not totals:
        raise DataError(f"{reading.name}: no case with features and labels")
    scale = fit_intensity_scale(totals, reading.name)
    return FeatureTable(table.subjects, table.names, scale.apply(table.values))
