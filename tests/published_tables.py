"""Small made-up tables in the form of the published ones, with a file of sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SCANS = ("T1", "T1GD", "T2", "FLAIR")
UPENN_HEAD = "ID,Gender,Age_at_scan_years,IDH1,MGMT"
UCSF_HEAD = "ID,Sex,Age at MRI,WHO CNS Grade,MGMT status,1p/19q,IDH"
CECCARELLI_HEAD = "patient,IDH.status,X1p.19q.codeletion,MGMT.promoter.status,Grade,Gender,Age..years.at.diagnosis."


def write_captk(folder: Path, exams: dict[str, dict[str, tuple[float, float, float]]]) -> None:
    """exams: exam to region (ET, NC, ED) to volume, and mean and spread of every sequence."""
    folder.mkdir(parents=True, exist_ok=True)
    for scan in SCANS:
        for region in ("ET", "NC", "ED"):
            names = [f"{scan}_{region}_{n}" for n in (
                "Intensity_Mean", "Intensity_StandardDeviation", "Volumetric_Volume", "GLCM_Bins-16_Radius-1_Energy"
            )]  # fmt: skip
            lines = [",".join(["SubjectID", *names])]
            for exam, regions in exams.items():
                if region in regions:
                    volume, mean, spread = regions[region]
                    lines.append(f"{exam},{mean},{spread},{volume},-nan")
            path = folder / f"Radiomic_Features_CaPTk_automaticsegm_{scan}_{region}.csv"
            path.write_text("\n".join(lines) + "\n")


def ucsf_row(name: str, volume: float, mean: float, spread: float, ring: float) -> str:
    return ",".join([name, str(volume), *[f"{mean},{spread},{ring}"] * 4, "1"])


UCSF_FEATURES_HEAD = ",".join(
    ["patient_id", "tumor_volume_mm3"]
    + [f"tumor_{s}_mean,tumor_{s}_std,ring_{s}_p50" for s in ("t1", "t1c", "t2", "flair")]
    + ["label_hgg"]
)
TCGA_FEATURES_HEAD = ",".join(
    ["ID", "Date"]
    + [f"VOLUME_{r}" for r in ("ET", "NET", "ED")]
    + [
        f"INTENSITY_{w}_{r}_{s}"
        for r in ("ET", "NET", "ED")
        for s in ("T1Gd", "T1", "T2", "FLAIR")
        for w in ("Mean", "STD")
    ]
    + ["VOLUME_BRAIN"]
)


def tcga_row(name: str, regions: dict[str, tuple[float, float, float]]) -> str:
    """regions: ET, NET, ED to volume, mean and spread; intensities are empty at volume 0."""
    cells = [name, "2000.01.01", *(str(regions[r][0]) for r in ("ET", "NET", "ED"))]
    for r in ("ET", "NET", "ED"):
        volume, mean, spread = regions[r]
        cells += [f"{mean},{spread}" if volume else ","] * 4
    return ",".join([*cells, "1400000"])


def made_up_sources(folder: Path, seed: int = 0) -> Path:
    """Tables of 60, 60 and 40 patients of four hospitals, whose tumours tell IDH a little.

    Returns the file of sources.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    exams, upenn, ucsf, ucsf_labels, tcga, labels = {}, [], [], [], [], []
    for number in range(60):
        mutant, methylated = rng.random() < 0.3, rng.random() < 0.5
        regions = {r: _region(rng, mutant) for r in ("ET", "NC", "ED")}
        name = f"UPENN-GBM-{number:05d}_11"
        exams[name] = regions
        age = 60 - 12 * mutant + rng.normal() * 8
        upenn.append(f"{name},{'FM'[number % 2]},{age:.1f},{'Mutated' if mutant else 'Wildtype'},"
                     f"{'Methylated' if methylated else 'Unmethylated'}")  # fmt: skip
    for number in range(60):
        mutant, methylated = rng.random() < 0.4, rng.random() < 0.5
        volume, mean, spread = _region(rng, mutant)
        ring = rng.uniform(200, 900)
        ucsf.append(
            ucsf_row(
                f"UCSF-PDGM-{number:04d}_nifti",
                volume,
                mean * ring / 100,
                spread * ring / 100,
                ring,
            )
        )
        age = 60 - 12 * mutant + rng.normal() * 8
        ucsf_labels.append(
            f"UCSF-PDGM-{number:03d},{'FM'[number % 2]},{age:.0f},{rng.integers(2, 5)},"
            f"{'positive' if methylated else 'negative'},{'co-deletion' if rng.random() < 0.3 else 'intact'},"
            f"{'IDH1 p.R132H' if mutant else 'wildtype'}"
        )
    for number in range(40):
        mutant = rng.random() < 0.5
        name = f"TCGA-{('06', '08')[number % 2]}-{number:04d}"
        tcga.append(tcga_row(name, {r: _region(rng, mutant) for r in ("ET", "NET", "ED")}))
        age = 60 - 12 * mutant + rng.normal() * 8
        labels.append(f"{name},{'Mutant' if mutant else 'WT'},{'codel' if rng.random() < 0.3 else 'non-codel'},"
                      f"{'Methylated' if rng.random() < 0.5 else 'Unmethylated'},G{rng.integers(2, 5)},"
                      f"{('male', 'female')[number % 2]},{age:.0f}")  # fmt: skip
    write_captk(folder / "captk", exams)
    for file, head, lines in (
        ("upenn.csv", UPENN_HEAD, upenn), ("ucsf.csv", UCSF_FEATURES_HEAD, ucsf),
        ("ucsf-labels.csv", UCSF_HEAD, ucsf_labels), ("tcga.csv", TCGA_FEATURES_HEAD, tcga),
        ("tcga-labels.csv", CECCARELLI_HEAD, labels),
    ):  # fmt: skip
        (folder / file).write_text("\n".join([head, *lines]) + "\n")
    path = folder / "hospitals.toml"
    path.write_text(SOURCES)
    return path


def _region(rng: np.random.Generator, mutant: bool) -> tuple[float, float, float]:
    volume = round(float(rng.uniform(5000, 40000)))
    return volume, float(120 + 15 * mutant + 12 * rng.normal()), float(rng.uniform(10, 30))


SOURCES = """name = "four hospitals"
same_hospital = [["ucsf-pdgm", "ucsf"]]
grade_by_inclusion = ["upenn"]

[[sources]]
format = "upenn_gbm"
site = "upenn"
features = ["captk"]
labels = "upenn.csv"

[[sources]]
format = "ucsf_pdgm"
site = "ucsf-pdgm"
features = ["ucsf.csv"]
labels = "ucsf-labels.csv"

[[sources]]
format = "tcga"
features = ["tcga.csv"]
labels = "tcga-labels.csv"
"""


REAL = """name = "nine hospitals"
[[sources]]
format = "upenn_gbm"
site = "upenn"
features = ["data/radiomics/upenn-captk"]
labels = "tables/UPENN-GBM_clinical_info_v2.1.csv"
[[sources]]
format = "ucsf_pdgm"
site = "ucsf-pdgm"
features = ["data/radiomics/ucsf/features_from_gtmask.csv"]
labels = "tables/UCSF-PDGM-metadata_v5.csv"
[[sources]]
format = "tcga"
features = ["tables/TCGA_GBM_radiomicFeatures.csv", "tables/TCGA_LGG_radiomicFeatures.csv"]
labels = "tables/tcga_subtypes_ceccarelli2016.csv"
"""


def real_sources(folder: Path, data: Path) -> Path:
    """The file of sources of the real tables. data: the folder of real cases."""
    path, root = folder / "nine.toml", data.parent
    text = REAL.replace('"data/', f'"{root}/data/').replace('"tables/', f'"{root}/tables/')
    path.write_text(text)
    return path
