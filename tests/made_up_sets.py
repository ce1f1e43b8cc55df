"""The eight sets of `studies/five-public-sets.toml`, made up: published names, columns and words.

No cell and no voxel is a patient's. Labels are drawn here and written in the words of each table,
so the counts that a reader must find are known without any reader (`MadeUpSet.labels`).
"""

from __future__ import annotations

import dataclasses
import gzip
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from gliofed.data.formats.tcga import BY_CODE
from gliofed.data.formats.ucsf_pdgm import RENAMED
from gliofed.study import (
    GridConfig,
    NetworkConfig,
    PreparationConfig,
    QualityConfig,
    ScoreConfig,
    Study,
)

PUBLISHED = {
    "ucsf-pdgm": 495, "upenn-gbm": 611, "egd": 774, "utsw": 625, "tcga": 243,
    "cptac-gbm": 39, "ivygap": 34, "rembrandt": 64,
}  # fmt: skip
"""Patients before surgery with scans, of each set as published."""
EXTERNAL = ("cptac-gbm", "ivygap", "rembrandt")
PAPER = (1552, 466)
"""Patients in training and in the external test of Ren et al. 2025."""

SHAPE, SPACING_MM = (20, 24, 20), 8.0
RADII_MM = (66.0, 82.0, 62.0)
TISSUE = {"t1": (50, 25), "t1ce": (52, 27), "t2": (65, -20), "flair": (62, -18)}
TUMOUR = {"t1": 42, "t1ce": 85, "t2": 118, "flair": 120}
AFFINE = np.diag([SPACING_MM] * 3 + [1.0])
AFFINE[:3, 3] = -SPACING_MM * (np.array(SHAPE) - 1) / 2
MARKERS = ("idh", "codel_1p19q", "mgmt", "grade")
UNKNOWN = "unknown"
Words = Mapping[str, Mapping[str, Sequence[str]]]

UCSF_HEAD = (
    "ID,Sex,Age at MRI,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT status,MGMT index,"
    "1p/19q,IDH,1-dead 0-alive,OS,EOR,Biopsy prior to imaging,BraTS21 ID,"
    "BraTS21 Segmentation Cohort,BraTS21 MGMT Cohort"
)
UCSF: Words = {
    "idh": {"wildtype": ["wildtype"], "mutant": ["IDH1 p.R132H", "mutated (NOS)", "IDH2 p.R172K"]},
    "codel_1p19q": {
        "intact": ["intact"],
        "codeleted": ["co-deletion"],
        UNKNOWN: ["unknown", "relative co-deletion", ""],
    },
    "mgmt": {
        "methylated": ["positive"],
        "unmethylated": ["negative"],
        UNKNOWN: ["unknown", "indeterminate"],
    },
    "grade": {"2": ["2"], "3": ["3"], "4": ["4"]},
}
UPENN_HEAD = (
    "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,Survival_Status,"
    "Survival_Censor,IDH1,MGMT,KPS,GTR_over90percent,Time_since_baseline_preop,PsP_TP_score"
)
UPENN: Words = {
    "idh": {"wildtype": ["Wildtype"], "mutant": ["Mutated"], UNKNOWN: ["NOS/NEC"]},
    "mgmt": {
        "methylated": ["Methylated"],
        "unmethylated": ["Unmethylated"],
        UNKNOWN: ["Not Available", "Indeterminate"],
    },
}
EGD: Words = {
    "idh": {"wildtype": ["0"], "mutant": ["1"], UNKNOWN: ["-1"]},
    "codel_1p19q": {"intact": ["0"], "codeleted": ["1"], UNKNOWN: ["-1"]},
    "grade": {"2": ["2"], "3": ["3"], "4": ["4"], UNKNOWN: ["-1"]},
}
UTSW_HEAD = (
    "Subject ID,Sex at birth,Age at Imaging,Tumor Type,Tumor Grade,IDH,1p19Q CODEL,MGMT,"
    "Operation Status,Scanner Make,Scanner Model,Scanner Strength"
)
UTSW: Words = {
    "idh": {"wildtype": ["wild type"], "mutant": ["mutated"], UNKNOWN: ["NA"]},
    "codel_1p19q": {
        "intact": ["intact", "non co-deleted"],
        "codeleted": ["co-deleted"],
        UNKNOWN: ["NA"],
    },
    "mgmt": {
        "methylated": ["methylated"],
        "unmethylated": ["unmethylated"],
        UNKNOWN: ["NA", "indeterminate"],
    },
    "grade": {"2": ["2"], "3": ["3"], "4": ["4"], UNKNOWN: ["NA"]},
}
TCGA_HEAD = (
    "patient,Tissue.source.site,Study,BCR,Whole.exome,Whole.genome,RNAseq,SNP6,U133a,HM450,"
    "HM27,RPPA,Histology,Grade,Age..years.at.diagnosis.,Gender,Survival..months.,"
    "Vital.status..1.dead.,Karnofsky.Performance.Score,Mutation.Count,Percent.aneuploidy,"
    "IDH.status,X1p.19q.codeletion,IDH.codel.subtype,MGMT.promoter.status,"
    "Chr.7.gain.Chr.10.loss,Chr.19.20.co.gain,TERT.promoter.status,TERT.expression..log2.,"
    "TERT.expression.status,ATRX.status,DAXX.status,Telomere.Maintenance,BRAF.V600E.status,"
    "BRAF.KIAA1549.fusion,ABSOLUTE.purity,ABSOLUTE.ploidy,ESTIMATE.stromal.score,"
    "ESTIMATE.immune.score,ESTIMATE.combined.score,Original.Subtype,Transcriptome.Subtype,"
    "Pan.Glioma.RNA.Expression.Cluster,IDH.specific.RNA.Expression.Cluster,"
    "Pan.Glioma.DNA.Methylation.Cluster,IDH.specific.DNA.Methylation.Cluster,"
    "Supervised.DNA.Methylation.Cluster,Random.Forest.Sturm.Cluster,RPPA.cluster,"
    "Telomere.length.estimate.in.blood.normal..Kb.,Telomere.length.estimate.in.tumor..Kb."
)
TCGA: Words = {
    "idh": {"wildtype": ["WT"], "mutant": ["Mutant"], UNKNOWN: [""]},
    "codel_1p19q": {"intact": ["non-codel"], "codeleted": ["codel"], UNKNOWN: [""]},
    "mgmt": {"methylated": ["Methylated"], "unmethylated": ["Unmethylated"], UNKNOWN: [""]},
    "grade": {"2": ["G2"], "3": ["G3"], "4": ["G4"], UNKNOWN: [""]},
}
TCGA_CODES = ("DU", "06", "02", "HT", "08", "12", "19", "FG", "14")
BRATS_HEAD = (
    "Data Collection (as on TCIA+additional),Site ID,PatientID on TCIA Radiology Portal,"
    "Study date (m/d/yyyy) per PatientID,BraTS2021 ID,Segmentation (Task 1) Cohort,"
    "MGMT (Task 2) Cohort,MGMT value"
)
BRATS: Words = {"mgmt": {"methylated": ["1"], "unmethylated": ["0"], UNKNOWN: [""]}}
OWN: Words = {
    "idh": {"wildtype": ["wildtype"], "mutant": ["mutant"], UNKNOWN: ["n/a"]},
    "codel_1p19q": {"intact": ["intact"], "codeleted": ["codeleted"], UNKNOWN: ["n/a"]},
    "grade": {"2": ["2"], "3": ["3"], "4": ["4"], UNKNOWN: ["n/a"]},
}


@dataclass(frozen=True)
class MadeUpSet:
    """What a reader must find. labels: (marker, class or "unknown") to cases.

    hospitals: of TCGA, cases by hospital; else empty.
    """

    cases: int
    labels: Mapping[tuple[str, str], int]
    hospitals: Mapping[str, int]


@dataclass(frozen=True)
class _Patient:
    """number: from 1. labels: marker to class or "unknown". cells: marker to the table's word."""

    number: int
    labels: Mapping[str, str]
    cells: Mapping[str, str]
    age: int
    female: bool


def paper_sizes() -> dict[str, int]:
    """2,018 patients: the paper's two totals, shared out as the published sets are large."""
    train = {name: n for name, n in PUBLISHED.items() if name not in EXTERNAL}
    test = {name: n for name, n in PUBLISHED.items() if name in EXTERNAL}
    return _shared_out(train, PAPER[0]) | _shared_out(test, PAPER[1])


def _shared_out(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """Largest remainders."""
    exact = {name: total * n / sum(sizes.values()) for name, n in sizes.items()}
    out = {name: int(n) for name, n in exact.items()}
    for name in sorted(exact, key=lambda n: out[n] - exact[n])[: total - sum(out.values())]:
        out[name] += 1
    return out


def write_sets(root: Path, sizes: Mapping[str, int]) -> dict[str, MadeUpSet]:
    """Every set of `sizes` below `root`: folder name to what a reader must find."""
    return {name: _WRITERS[name](root / name, size) for name, size in sizes.items()}


def small_version(study: Study, root: Path) -> Study:
    """The study on the sets below `root`: one pass, one seed, tiny volumes, a small network."""
    return dataclasses.replace(
        study,
        data=dataclasses.replace(study.data, root=root),
        seeds=(1,),
        grid=GridConfig(spacing_mm=(SPACING_MM,) * 3, patch=(16, 24, 16)),
        prepare=PreparationConfig(brain="stripped", register=False, space="scanner", bias=False),
        quality=QualityConfig(brain_litres=(0.3, 2.2), alignment=0.0),
        net=NetworkConfig(preset="small"),
        train=dataclasses.replace(study.train, epochs=1),
        score=ScoreConfig(bootstrap=100, mirror=False),
    )


def _patients(name: str, count: int, words: Words, fixed: Mapping[str, str]) -> list[_Patient]:
    """Patients of a set; markers without words have its `fixed` class, or are unknown."""
    rng = np.random.default_rng(sum(map(ord, name)))
    spellings = {(m, c): cycle(w) for m, of in words.items() for c, w in of.items()}
    out = []
    for number in range(1, count + 1):
        labels = {m: fixed.get(m, UNKNOWN) for m in MARKERS}
        for marker, known in words.items():
            labels[marker] = str(rng.choice(list(known)))
        cells = {m: next(spellings[m, labels[m]]) for m in words}
        age, female = int(rng.integers(20, 85)), bool(rng.random() < 0.4)
        out.append(_Patient(number, labels, cells, age, female))
    return out


def _made_up(patients: Sequence[_Patient], hospitals: Mapping[str, int] | None = None) -> MadeUpSet:
    labels = Counter((m, p.labels[m]) for p in patients for m in MARKERS)
    return MadeUpSet(len(patients), labels, hospitals or {})


def _table(
    path: Path, head: str, rows: Sequence[Mapping[str, object]], separator: str = ","
) -> None:
    """A table with all columns of `head`; cells that no reader reads are empty."""
    columns = head.split(",")
    lines = [separator.join(str(row.get(c, "")) for c in columns) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([separator.join(columns), *lines]) + "\n")


def write_scans(folder: Path, seed: str, names: Mapping[str, str], mask: tuple[str, int]) -> None:
    """Four tiny scans of one made-up brain, and its mask. names: sequence to file name.

    mask: its file, relative to the folder, and the number of labels that its set uses.
    """
    rng = np.random.default_rng(list(seed.encode()))
    mm = [(np.arange(n) - (n - 1) / 2) * SPACING_MM for n in SHAPE]
    x, y, z = np.meshgrid(*mm, indexing="ij")
    folds = _smooth(rng, 1.0)
    radius = np.sqrt(sum((a / r) ** 2 for a, r in zip((x, y, z), RADII_MM, strict=True)))
    brain = radius + 0.03 * folds < 1
    centre = [rng.choice([-1, 1]) * rng.uniform(18, 34), rng.uniform(-35, 35), rng.uniform(-10, 24)]
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip((x, y, z), centre, strict=True)))
    tumour = distance < rng.uniform(15, 25)
    for sequence, name in names.items():
        low, contrast = TISSUE[sequence]
        image = low + contrast * folds / 3 + 3 * _smooth(rng, 0.7)
        image[tumour] = TUMOUR[sequence]
        _write(folder / f"{name}.nii.gz", np.where(brain, np.maximum(image, 1), 0).astype(np.int16))
    core, labels = distance < 12, np.zeros(SHAPE, np.uint8)
    labels[tumour & brain] = 2 if mask[1] > 1 else 1
    if mask[1] > 1:
        labels[core & tumour & brain] = 1
        labels[(distance < 8) & tumour & brain] = 4 if mask[1] == 3 else 3
    _write(folder / f"{mask[0]}.nii.gz", labels)


def _smooth(rng: np.random.Generator, width: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(SHAPE), width)
    return (noise - noise.mean()) / noise.std()


def _write(path: Path, data: np.ndarray) -> None:
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _four(prefix: str, names: Sequence[str], end: str = "") -> dict[str, str]:
    return {s: f"{prefix}{n}{end}" for s, n in zip(TISSUE, names, strict=True)}


def _ucsf(root: Path, count: int) -> MadeUpSet:
    """With six follow-ups, named as versions 3 to 5 name them; their old numbers are not used."""
    patients = _patients("ucsf", count, UCSF, {})
    numbers = [n for n in range(1, count + 10) if n not in RENAMED]
    names = [f"UCSF-PDGM-{n:04d}" for n in numbers[:count]]
    rows = [{
        "ID": f"UCSF-PDGM-{int(name[-4:]):03d}", "Sex": "MF"[p.female], "Age at MRI": p.age,
        "WHO CNS Grade": p.cells["grade"], "MGMT status": p.cells["mgmt"],
        "1p/19q": p.cells["codel_1p19q"], "IDH": p.cells["idh"], "Biopsy prior to imaging": "No",
    } for name, p in zip(names, patients, strict=True)]  # fmt: skip
    rows += [{**r, "ID": f"UCSF-PDGM-{n:04d}_FU009d"} for n, r in enumerate(rows[:6], start=1)]
    _table(root / "UCSF-PDGM-metadata_v5.csv", UCSF_HEAD, rows)
    for name in names:
        scans = _four(f"{name}_", ("T1_bias", "T1c_bias", "T2_bias", "FLAIR_bias"))
        folder = root / "PKG - UCSF-PDGM-v5/UCSF-PDGM-v5" / f"{name}_nifti"
        write_scans(folder, name, scans, (f"{name}_tumor_segmentation", 3))
    return _made_up(patients)


def _upenn(root: Path, count: int) -> MadeUpSet:
    """With follow-ups `_21` of every tenth patient."""
    patients = _patients("upenn", count, UPENN, {"grade": "4"})
    rows = [{
        "ID": f"UPENN-GBM-{p.number:05d}_11", "Gender": "MF"[p.female],
        "Age_at_scan_years": f"{p.age}.25", "IDH1": p.cells["idh"], "MGMT": p.cells["mgmt"],
        "KPS": "Not Available", "Time_since_baseline_preop": 0, "PsP_TP_score": "NA",
    } for p in patients]  # fmt: skip
    rows += [{**r, "ID": str(r["ID"])[:-2] + "21"} for r in rows[::10]]
    _table(root / "UPENN-GBM_clinical_info_v2.1.csv", UPENN_HEAD, rows)
    for p in patients:
        name = f"UPENN-GBM-{p.number:05d}_11"
        mask = "images_segm", "segm"
        if p.number % 4:
            mask = "automated_segm", "automated_approx_segm"
        write_scans(
            root / "NIfTI-files/images_structural" / name,
            name,
            _four(f"{name}_", ("T1", "T1GD", "T2", "FLAIR")),
            (f"../../{mask[0]}/{name}_{mask[1]}", 3),
        )
    return _made_up(patients)


def _egd(root: Path, count: int) -> MadeUpSet:
    patients = _patients("egd", count, EGD, {})
    labels = [{
        "Subject": f"EGD-{p.number:04d}", "IDH": p.cells["idh"], "1p19q": p.cells["codel_1p19q"],
        "Grade": p.cells["grade"],
    } for p in patients]  # fmt: skip
    _table(root / "Genetic_and_Histological_labels.csv", "Subject,IDH,1p19q,Grade", labels)
    clinical = [
        {"Subject": f"EGD-{p.number:04d}", "Age": p.age, "Sex": "MF"[p.female]} for p in patients
    ]
    _table(root / "Clinical_data.csv", "Subject,Age,Sex", clinical)
    for p in patients:
        name = f"EGD-{p.number:04d}"
        write_scans(
            root / "SUBJECTS" / name, name, _four("", ("T1", "T1GD", "T2", "FLAIR")), ("MASK", 1)
        )
    return _made_up(patients)


def _utsw(root: Path, count: int) -> MadeUpSet:
    patients = _patients("utsw", count, UTSW, {})
    rows = [{
        "Subject ID": f"BT{p.number:04d}", "Sex at birth": "Female" if p.female else "Male",
        "Age at Imaging": p.age, "Tumor Grade": p.cells["grade"], "IDH": p.cells["idh"],
        "1p19Q CODEL": p.cells["codel_1p19q"], "MGMT": p.cells["mgmt"],
        "Operation Status": "Preop", "Scanner Make": "Philips", "Scanner Strength": "3.0",
    } for p in patients]  # fmt: skip
    _table(root / "UTSW_Glioma_Metadata-2-1.tsv", UTSW_HEAD, rows, "\t")
    for p in patients:
        name = f"BT{p.number:04d}"
        mask = "rtumorseg_manual_correction" if p.number % 2 else "tumorseg_FeTS"
        scans = _four("brain_", ("t1", "t1ce", "t2", "fl"), "_ants")
        write_scans(root / "UTSW-Glioma" / name, name, scans, (mask, 3))
    return _made_up(patients)


def _tcga(root: Path, count: int) -> MadeUpSet:
    """With as many rows again that have no scans, as Table S1 has."""
    patients = _patients("tcga", 2 * count, TCGA, {})
    names = [f"TCGA-{TCGA_CODES[p.number % len(TCGA_CODES)]}-{p.number:04d}" for p in patients]
    rows = [{
        "patient": name, "Grade": p.cells["grade"], "Age..years.at.diagnosis.": p.age,
        "Gender": "female" if p.female else "male", "IDH.status": p.cells["idh"],
        "X1p.19q.codeletion": p.cells["codel_1p19q"], "MGMT.promoter.status": p.cells["mgmt"],
    } for name, p in zip(names, patients, strict=True)]  # fmt: skip
    _table(root / "tcga_subtypes_ceccarelli2016.csv", TCGA_HEAD, rows)
    for name in names[:count]:
        scan = f"{name}_1999.01.02_"
        write_scans(
            root / "Pre-operative_TCGA_NIfTI_and_Segmentations" / name,
            name,
            _four(scan, ("t1", "t1Gd", "t2", "flair")),
            (f"{scan}GlistrBoost_ManuallyCorrected", 3),
        )
    hospitals = Counter(BY_CODE[name[5:7]] for name in names[:count])
    return _made_up(patients[:count], hospitals)


def _brats(collection: str, first: int) -> Callable[[Path, int], MadeUpSet]:
    """One collection of BraTS 2021, with rows of another that have no scans."""

    def write(root: Path, count: int) -> MadeUpSet:
        patients = _patients(collection, count, BRATS, {"grade": "4"})
        cases = [f"BraTS2021_{first + p.number:05d}" for p in patients]
        rows = [{
            "Data Collection (as on TCIA+additional)": collection, "Site ID": 6,
            "PatientID on TCIA Radiology Portal": f"{collection[0]}3L-{p.number:05d}",
            "BraTS2021 ID": case, "Segmentation (Task 1) Cohort": "Training",
            "MGMT (Task 2) Cohort": "Training" if p.cells["mgmt"] else "",
            "MGMT value": p.cells["mgmt"],
        } for case, p in zip(cases, patients, strict=True)]  # fmt: skip
        rows.append({**rows[0], "Data Collection (as on TCIA+additional)": "ACRIN-FMISO-Brain",
                     "PatientID on TCIA Radiology Portal": "other", "BraTS2021 ID": "00169"})  # fmt: skip
        _table(root / "BraTS2021_MappingToTCIA.csv", BRATS_HEAD, rows)
        for case in cases:
            write_scans(
                root / "BraTS2021_TrainingSet" / collection / case,
                case,
                _four(f"{case}_", ("t1", "t1ce", "t2", "flair")),
                (f"{case}_seg", 3),
            )
        return _made_up(patients)

    return write


def _rembrandt(root: Path, count: int) -> MadeUpSet:
    patients = _patients("rembrandt", count, OWN, {})
    names = [f"HF{p.number:04d}" if p.number % 3 else f"900-00-{p.number:04d}" for p in patients]
    rows = [{
        "patient": name, "sex": "MF"[p.female], "age": p.age, "idh": p.cells["idh"],
        "codel_1p19q": p.cells["codel_1p19q"], "grade": p.cells["grade"],
    } for name, p in zip(names, patients, strict=True)]  # fmt: skip
    _table(root / "labels.csv", "patient,idh,codel_1p19q,mgmt,grade,sex,age", rows)
    for name in names:
        exam = f"{name}_1994.04.23"
        write_scans(
            root / exam,
            exam,
            _four(f"{exam}_", ("t1", "t1ce", "t2", "flair"), "_LPS_rSRI"),
            (f"{exam}_GlistrBoost_out", 3),
        )
    return _made_up(patients)


_WRITERS: Mapping[str, Callable[[Path, int], MadeUpSet]] = {
    "ucsf-pdgm": _ucsf, "upenn-gbm": _upenn, "egd": _egd, "utsw": _utsw, "tcga": _tcga,
    "cptac-gbm": _brats("CPTAC-GBM", 0), "ivygap": _brats("IvyGAP", 1000), "rembrandt": _rembrandt,
}  # fmt: skip
