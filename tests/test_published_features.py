"""Published tables of features are read into one vocabulary: formulas, units, and every row."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from published_tables import (
    CECCARELLI_HEAD,
    SOURCES,
    TCGA_FEATURES_HEAD,
    UCSF_FEATURES_HEAD,
    UCSF_HEAD,
    UPENN_HEAD,
    made_up_sources,
    real_sources,
    tcga_row,
    ucsf_row,
    write_captk,
)

from gliofed.errors import DataError, StudyError
from gliofed.radiomics.intensity_scale import fit_intensity_scale, intensity_totals
from gliofed.radiomics.published.sources import load_hospitals, read_hospitals
from gliofed.radiomics.published.tcga import read_tcga
from gliofed.radiomics.published.ucsf_pdgm import read_ucsf_pdgm
from gliofed.radiomics.published.upenn_gbm import FOLLOW_UP, read_upenn_gbm
from gliofed.radiomics.vocabulary import (
    COMMON,
    FEATURES,
    NAMES,
    REGIONAL,
    REGIONS,
    RegionMeasures,
    feature_values,
    whole_tumour,
)
from gliofed.types import SEQUENCES, UNKNOWN


def region(voxels: np.ndarray) -> RegionMeasures:
    return RegionMeasures(
        len(voxels), dict.fromkeys(SEQUENCES, voxels.mean()), dict.fromkeys(SEQUENCES, voxels.std())
    )


def value(values: np.ndarray, name: str) -> float:
    return float(values[NAMES.index(name)])


def test_regions_together_have_mean_and_spread_of_all_their_voxels() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(m, s, n) for m, s, n in ((100, 5, 40), (160, 20, 300), (60, 9, 7))]
    regions = dict(zip(REGIONS, map(region, parts), strict=True))
    whole, voxels = whole_tumour(regions), np.concatenate(parts)
    assert whole.volume_mm3 == 347
    for scan in SEQUENCES:
        assert whole.mean[scan] == pytest.approx(voxels.mean())
        assert whole.spread[scan] == pytest.approx(voxels.std())
    found = feature_values(whole, regions)
    assert value(found, "wt_log_volume") == pytest.approx(math.log(0.347))
    assert value(found, "wt_t2_variation") == pytest.approx(voxels.std() / voxels.mean())
    assert value(found, "ncr_fraction") == pytest.approx(300 / 347)
    assert value(found, "et_flair_to_ed") == pytest.approx(parts[0].mean() / parts[2].mean())
    assert np.isfinite(found).all()


def test_an_empty_region_adds_nothing_and_an_unknown_one_makes_the_whole_unknown() -> None:
    nothing = dict.fromkeys(SEQUENCES, math.nan)
    known = region(np.array([1.0, 3.0]))
    empty = {"et": RegionMeasures(0, nothing, nothing), "ncr": known, "ed": known}
    assert whole_tumour(empty).mean[SEQUENCES[0]] == 2
    assert value(feature_values(whole_tumour(empty), empty), "et_fraction") == 0
    unknown = {**empty, "et": RegionMeasures(math.nan, nothing, nothing)}
    found = feature_values(whole_tumour(unknown), unknown)
    assert np.isnan(found[: len(COMMON)]).all()
    assert value(found, "ncr_t1_mean") == 2
    no_tumour = dict.fromkeys(REGIONS, RegionMeasures(0, nothing, nothing))
    assert np.isnan(feature_values(whole_tumour(no_tumour), no_tumour)).all()


def test_every_feature_has_one_name_a_formula_and_a_unit() -> None:
    assert len(set(NAMES)) == len(FEATURES) == len(COMMON) + len(REGIONAL)
    assert all(f.formula and f.unit for f in FEATURES)
    assert not any(f.regional for f in COMMON)
    assert all(f.regional for f in REGIONAL)


def test_the_scale_divides_every_intensity_by_the_mean_of_its_sequence_over_all_hospitals() -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(1, 2, (9, len(NAMES)))
    values[3, NAMES.index("wt_t1_mean")] = math.nan
    scale = fit_intensity_scale([intensity_totals(values[:2]), intensity_totals(values[2:])], "x")
    out = scale.apply(values)
    mean = np.nanmean(values[:, NAMES.index("wt_t1_mean")])
    for name in ("wt_t1_mean", "ncr_t1_spread"):
        assert out[0, NAMES.index(name)] == pytest.approx(values[0, NAMES.index(name)] / mean)
    for name in ("wt_log_volume", "wt_t1_variation", "et_fraction", "et_t1_to_ed"):
        assert out[0, NAMES.index(name)] == values[0, NAMES.index(name)]
    with pytest.raises(DataError, match="before z-scoring"):
        fit_intensity_scale([intensity_totals(np.full_like(values, -1.5))], "x")


def upenn(tmp_path: Path):
    exams = {
        "UPENN-GBM-00001_11": {"ET": (100, 120, 10), "NC": (50, 60, 4), "ED": (200, 140, 8)},
        "UPENN-GBM-00002_11": {"NC": (50, 60, 4), "ED": (200, 140, 8)},
        "UPENN-GBM-00003_21": {"ET": (100, 120, 10), "NC": (50, 60, 4), "ED": (200, 140, 8)},
        "UPENN-GBM-00004_11": {"ET": (100, 120, 10), "NC": (50, 60, 4), "ED": (200, 140, 8)},
    }
    write_captk(tmp_path / "captk", exams)
    labels = tmp_path / "labels.csv"
    labels.write_text(
        f"{UPENN_HEAD}\nUPENN-GBM-00001_11,M,52.16,Mutated,Unmethylated\n"
        "UPENN-GBM-00002_11,F,70,NOS/NEC,Indeterminate\nUPENN-GBM-00003_21,F,70,Wildtype,Methylated\n"
        "UPENN-GBM-00009_11,F,70,Wildtype,Methylated\n"
    )
    return tmp_path / "captk", labels


def test_captk_files_are_read_as_one_hospital_and_every_row_is_accounted_for(tmp_path) -> None:
    reading = read_upenn_gbm(*upenn(tmp_path), "upenn")
    first, second = reading.table.subjects
    assert (first.patient, first.site, first.person.age) == ("UPENN-GBM-00001", "upenn", 52.16)
    assert (first.labels["idh"], first.labels["mgmt"], first.labels["grade"]) == (
        "mutant", "unmethylated", "4",
    )  # fmt: skip
    assert second.labels["idh"] is second.labels["mgmt"] is UNKNOWN
    mean = (100 * 120 + 50 * 60 + 200 * 140) / 350
    assert value(reading.table.values[0], "wt_flair_mean") == pytest.approx(mean)
    assert value(reading.table.values[0], "ncr_t1ce_mean") == 60
    assert np.isnan(value(reading.table.values[1], "wt_flair_mean"))
    assert value(reading.table.values[1], "ed_t1_mean") == 140
    assert "1 patients have no row of region et" in reading.notes[0]
    by_file = {a.file: a for a in reading.accounts}
    assert len(by_file) == 13
    enhancing = by_file["Radiomic_Features_CaPTk_automaticsegm_T1_ET.csv"]
    assert (enhancing.rows, enhancing.read) == (3, 1)
    assert enhancing.dropped == {FOLLOW_UP: 1, "no row in the clinical table": 1}
    assert by_file["labels.csv"].dropped == {
        FOLLOW_UP: 1, "no row in the table of features": 1,
    }  # fmt: skip
    assert {u.names for u in reading.unmapped if "T1_ET" in u.table} == {
        "T1_ET_GLCM_Bins-16_Radius-1_Energy"
    }


@pytest.mark.parametrize(("damage", "message"), [
    (lambda f: (f / "Radiomic_Features_CaPTk_automaticsegm_T2_NC.csv").unlink(), "0 files *_T2_NC.csv; expected one"),
    (lambda f: f.rename(f.with_name("elsewhere")), "captk: no such folder; expected that of CaPTk"),
    (lambda f: edit(f, "T2_NC", ",50,", ",51,"), "volume of NC of UPENN-GBM-00001_11 differs"),
    (lambda f: edit(f, "T2_NC", ",60,", ",dark,"), "T2_NC_Intensity_Mean is 'dark'; expected a number"),
    (lambda f: edit(f, "T2_NC", ",4,", ",-4,"), "StandardDeviation is -4; expected 0 or more"),
    (lambda f: edit(f, "T2_NC", "00001_11", "00001"), "not an id of UPENN-GBM"),
    (lambda f: edit(f, "T2_NC", "GLCM", "Unheard"), "'T2_NC_Unheard_Bins-16_Radius-1_Energy' is of no known version"),
])  # fmt: skip
def test_damaged_captk_files_are_one_clear_error(damage, message, tmp_path) -> None:
    folder, labels = upenn(tmp_path)
    damage(folder)
    with pytest.raises(DataError) as caught:
        read_upenn_gbm(folder, labels, "upenn")
    assert message in str(caught.value)


def edit(folder: Path, which: str, old: str, new: str) -> None:
    (path,) = folder.glob(f"*_{which}.csv")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def ucsf(tmp_path: Path, rows: list[str]) -> tuple[Path, Path]:
    features, labels = tmp_path / "features.csv", tmp_path / "metadata.csv"
    features.write_text("\n".join([UCSF_FEATURES_HEAD, *rows]) + "\n")
    labels.write_text(
        f"{UCSF_HEAD}\nUCSF-PDGM-004,M,66,4,negative,unknown,wildtype\n"
        "UCSF-PDGM-0429_FU003d,M,66,4,negative,unknown,wildtype\n"
        "UCSF-PDGM-005,F,30,2,positive,co-deletion,IDH1 p.R132H\n"
    )
    return features, labels


def test_the_ucsf_table_is_read_in_units_of_the_ring_and_follow_ups_are_dropped(tmp_path) -> None:
    rows = [
        ucsf_row("UCSF-PDGM-0004_nifti", 5000, 600, 90, 300),
        ucsf_row("UCSF-PDGM-0429_FU003d_nifti", 5000, 600, 90, 300),
        ucsf_row("UCSF-PDGM-0007_nifti", 5000, 600, 90, 300),
    ]
    reading = read_ucsf_pdgm(*ucsf(tmp_path, rows), "ucsf-pdgm")
    (subject,) = reading.table.subjects
    assert (subject.case, subject.labels["grade"]) == ("UCSF-PDGM-0004", "4")
    assert value(reading.table.values[0], "wt_t1ce_mean") == 2
    assert value(reading.table.values[0], "wt_t1ce_spread") == pytest.approx(0.3)
    assert value(reading.table.values[0], "wt_log_volume") == pytest.approx(math.log(5))
    assert np.isnan(reading.table.values[0, len(COMMON) :]).all()
    features, labels = reading.accounts
    assert (features.rows, features.read, sum(features.dropped.values())) == (3, 1, 2)
    assert (labels.rows, labels.read, sum(labels.dropped.values())) == (3, 1, 2)


@pytest.mark.parametrize(("ring", "message"), [
    ("0", "ring_t1_p50 is 0; expected"), ("dim", "'dim'; expected a number"),
])  # fmt: skip
def test_a_ring_without_brightness_is_one_clear_error(ring, message, tmp_path) -> None:
    row = ucsf_row("UCSF-PDGM-0004_nifti", 5000, 600, 90, 300).replace(",300", f",{ring}")
    with pytest.raises(DataError, match=message):
        read_ucsf_pdgm(*ucsf(tmp_path, [row]), "ucsf-pdgm")


def test_the_tcga_tables_are_read_with_empty_regions_at_the_hospital_of_the_barcode(
    tmp_path,
) -> None:
    regions = {"ET": (0, 0, 0), "NET": (100, 60, 4), "ED": (300, 100, 6)}
    features, labels = tmp_path / "tcga.csv", tmp_path / "labels.csv"
    features.write_text(f"{TCGA_FEATURES_HEAD}\n{tcga_row('TCGA-08-0001', regions)}\n")
    labels.write_text(
        f"{CECCARELLI_HEAD}\nTCGA-08-0001,Mutant,non-codel,Methylated,G2,male,40\n"
        "TCGA-08-0002,WT,NA,NA,G4,male,40\n"
    )
    reading = read_tcga([features], labels)
    (subject,) = reading.table.subjects
    assert (subject.site, subject.labels["grade"]) == ("ucsf", "2")
    found = reading.table.values[0]
    assert value(found, "wt_t1_mean") == 90
    assert value(found, "et_fraction") == 0
    assert np.isnan(value(found, "et_t1_mean"))
    assert [(a.rows, a.read) for a in reading.accounts] == [(1, 1), (2, 1)]
    with pytest.raises(DataError, match="TCGA-08-0001 is in another table too; keep one"):
        read_tcga([features, features], labels)


@pytest.mark.parametrize(("old", "new", "error", "message"), [
    ('site = "upenn"\n', "", StudyError, "source 1 (upenn_gbm): site ''; this format needs the hospital's name"),
    ('features = ["tcga.csv"]', 'features = ["tcga.csv"]\nsite = "x"', StudyError, "has its sites from the barcodes"),
    ('["ucsf.csv"]', '["ucsf.csv", "b.csv"]', StudyError, "2 features; expected 1"),
    ('"ucsf_pdgm"', '"ucsf"', StudyError, "expected one of"),
    ('site = "ucsf-pdgm"', 'site = "ucsf"', DataError, "tcga: ucsf is a site of another source too"),
    ('["upenn"]', '["penn"]', DataError, "no site 'penn'; there are: henry-ford-hospital, ucsf"),
])  # fmt: skip
def test_a_faulty_file_of_sources_is_one_clear_error(old, new, error, message, tmp_path) -> None:
    path = made_up_sources(tmp_path)
    assert old in SOURCES
    path.write_text(SOURCES.replace(old, new).replace('[["ucsf-pdgm", "ucsf"]]', "[]"))
    with pytest.raises(error) as caught:
        read_hospitals(load_hospitals(path))
    assert message in str(caught.value)


@pytest.mark.data
def test_every_row_and_column_of_the_real_tables_is_accounted_for(real_data, tmp_path) -> None:
    shared = real_data.parent
    read = read_hospitals(load_hospitals(real_sources(tmp_path, real_data)))
    accounts = {a.file: a for r in read.readings for a in r.accounts}
    for file, account in accounts.items():
        (found,) = [*shared.glob(f"tables/{file}"), *shared.glob(f"data/radiomics/*/{file}")]
        lines = found.read_text().splitlines()
        assert account.rows == len(lines) - 1 == account.read + sum(account.dropped.values()), file
    assert Counter(s.site for s in read.table.subjects) == {
        "upenn": 611, "ucsf-pdgm": 318, "henry-ford-hospital": 69, "md-anderson-cancer-center": 22,
        "case-western": 14, "case-western-st-joseph": 13, "ucsf": 12, "duke": 8, "emory-university": 4,
    }  # fmt: skip
    ucsf_features = accounts["features_from_gtmask.csv"]
    assert (ucsf_features.rows, ucsf_features.read) == (321, 318)
    for reading in read.readings:
        for file in {u.table for u in reading.unmapped}:
            (found,) = [*shared.glob(f"tables/{file}"), *shared.glob(f"data/radiomics/*/{file}")]
            columns = len(found.read_text().split("\n", 1)[0].split(","))
            unused = sum(u.columns for u in reading.unmapped if u.table == file)
            used = {"upenn": 4, "ucsf-pdgm": 14, "tcga": 28}[reading.name]
            assert columns == unused + used, file
    known = read.table.values[:, : len(COMMON)]
    assert np.isfinite(known).all(1).sum() == 1071 - 12
