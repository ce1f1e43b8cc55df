"""Small made-up data sets with the exact names of the published ones. The files are empty:
no adapter may open an image. Patients and labels are invented."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

BRATS_ENDS = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
NEW_ENDS = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")
RHUH_HEADER = (
    "Patient ID,Days from earliest imaging to surgery ,Age,Sex,"
    '"Previous treatment = (no, surgery, surgery + QT/RT)",WHO grade,'
    '"IDH status = (mutant [mut], wild type [wt], NOS)"\n'
)
MAPPING_2021 = (
    "Data Collection (as on TCIA+additional),Site ID,PatientID on TCIA Radiology Portal,"
    "Study date (m/d/yyyy) per PatientID,BraTS2021 ID,Segmentation (Task 1) Cohort,"
    "MGMT (Task 2) Cohort,MGMT value\n"
)


def touch(folder: Path, *names: str, end: str = ".nii.gz") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{end}").touch()


def bids(root: Path) -> None:
    for name in ("sub-01", "sub-02"):
        touch(root / name / "anat", *(f"{name}_{s}" for s in ("T1w", "ce-gd_T1w", "T2w", "FLAIR")))
    touch(root / "derivatives/x/sub-01/anat", "sub-01_label-tumor_mask")
    (root / "sub-01/anat/sub-01_FLAIR.json").write_text(
        '{"Manufacturer": "Siemens", "ManufacturersModelName": "Skyra", "MagneticFieldStrength": 3}'
    )
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\tidh\tcodel_1p19q\tmgmt\tgrade\n"
        "sub-01\t44\tF\t1\t0\tn/a\t3\n"
        "sub-02\tn/a\t\tn/a\tn/a\tn/a\tn/a\n"
        "sub-03\t50\tM\t0\t0\t1\t4\n"
    )


def ucsf(root: Path) -> None:
    for name in ("UCSF-PDGM-0901", "UCSF-PDGM-0902", "UCSF-PDGM-0901_FU009d"):
        kinds = ("T1_bias", "T1c_bias", "T2_bias", "FLAIR_bias", "T1", "tumor_segmentation")
        touch(root / "UCSF-PDGM-v5" / f"{name}_nifti", *(f"{name}_{k}" for k in kinds))
    (root / "UCSF-PDGM-metadata_v5.csv").write_text(
        "ID,Sex,Age at MRI,WHO CNS Grade,MGMT status,1p/19q,IDH,Biopsy prior to imaging\n"
        "UCSF-PDGM-901,F,44,3,positive,intact,IDH1 p.R132H,No\n"
        "UCSF-PDGM-902,M,71,4,indeterminate,,wildtype,No\n"
        "UCSF-PDGM-0901_FU009d,F,44,3,positive,intact,IDH1 p.R132H,No\n"
        "UCSF-PDGM-903,M,30,2,,relative co-deletion,mutated (NOS),No\n"
    )


def upenn(root: Path) -> None:
    scans = root / "NIfTI-files"
    for name in ("UPENN-GBM-90001_11", "UPENN-GBM-90002_11", "UPENN-GBM-90001_21"):
        touch(
            scans / "images_structural" / name,
            *(f"{name}_{k}" for k in ("T1", "T1GD", "T2", "FLAIR")),
        )
        touch(scans / "images_structural_unstripped" / name, f"{name}_T1_unstripped")
        touch(scans / "automated_segm", f"{name}_automated_approx_segm")
    touch(scans / "images_segm", "UPENN-GBM-90001_11_segm")
    (root / "UPENN-GBM_clinical_info_v2.1.csv").write_text(
        "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,IDH1,MGMT,KPS\n"
        "UPENN-GBM-90001_11,F,52.5,Not Available,Mutated,Methylated,Not Available\n"
        "UPENN-GBM-90002_11,M,61.25,200,NOS/NEC,Indeterminate,80\n"
        "UPENN-GBM-90001_21,F,53.5,Not Available,Mutated,Methylated,Not Available\n"
    )


def egd(root: Path) -> None:
    for name in ("EGD-0901", "EGD-0902"):
        touch(root / "SUBJECTS" / name, "T1", "T1GD", "T2", "FLAIR", "MASK")
    (root / "Genetic_and_Histological_labels.csv").write_text(
        "Subject;IDH;1p19q;Grade\nEGD-0901;1;1;2\nEGD-0902;-1;-1;-1\nEGD-0903;0;0;4\n"
    )
    (root / "Clinical_data.csv").write_text("Subject;Age;Sex\nEGD-0901;39;F\nEGD-0902;-1;M\n")


def utsw(root: Path) -> None:
    for name, flair in (
        ("BT0901", "brain_fl_ants"),
        ("BT0902", "brain_flair_ants"),
        ("BT0903", "brain_fl_ants"),
    ):
        ants = ("brain_t1_ants", "brain_t1ce_ants", "brain_t2_ants", flair)
        touch(root / "UTSW-Glioma" / name, *ants, "tumorseg_FeTS", "tumorseg_manual_correction")
    touch(root / "UTSW-Glioma/BT0901", "rtumorseg_manual_correction")
    (root / "UTSW_Glioma_Metadata-2-1.tsv").write_text(
        "Subject ID\tSex at birth\tAge at Imaging\tTumor Type\tTumor Grade\tIDH\t1p19Q CODEL\tMGMT\t"
        "Operation Status\tScanner Make\tScanner Model\tScanner Strength\r\n"
        "BT0901\tFemale\t44\tx\t3\tmutated\tintact\tmethylated\tPreop\tPhilips\tIngenia\t3.0\r\n"
        "BT0902\tMale\t60\tx\tNA\tNA\tNA\tNA\tPreop\tNA\tNA\tNA\r\n"
        "BT0903\tMale\t61\tx\t4\twild type\tNA\tunmethylated\tPostop\tGE\tSigna\t1.5\r\n"
    )


def ceccarelli(root: Path, rows: Mapping[str, str]) -> None:
    header = (
        "patient,Tissue.source.site,Grade,Age..years.at.diagnosis.,Gender,IDH.status,"
        "X1p.19q.codeletion,MGMT.promoter.status\n"
    )
    lines = "".join(f'{name},"A hospital",{row}\n' for name, row in rows.items())
    root.mkdir(parents=True, exist_ok=True)
    (root / "tcga_subtypes_ceccarelli2016.csv").write_text(header + lines)


def tcga(root: Path) -> None:
    for name in ("TCGA-06-9901", "TCGA-FG-9902"):
        kinds = ("flair", "t1", "t1Gd", "t2", "GlistrBoost")
        touch(root / "Pre-operative" / name, *(f"{name}_1999.01.02_{k}" for k in kinds))
    name = "TCGA-06-9901"
    touch(root / "Pre-operative" / name, f"{name}_1999.01.02_GlistrBoost_ManuallyCorrected")
    ceccarelli(root, {
        "TCGA-06-9901": "G4,60,male,WT,non-codel,Methylated",
        "TCGA-FG-9902": ",,,,,",
        "TCGA-HT-9903": "G2,30,female,Mutant,codel,Unmethylated",
    })  # fmt: skip


def brats(root: Path) -> None:
    for name in ("BraTS2021_90001", "BraTS2021_90002"):
        touch(root / name, *(name + e for e in BRATS_ENDS))
    (root / "BraTS2021_MappingToTCIA.csv").write_text(
        MAPPING_2021 + "TCGA-GBM,4,TCGA-06-9901,n/a,BraTS2021_90001,Training,Training,1\n"
        "UCSF-PDGM,18,138,n/a,BraTS2021_90002,Training,,\n"
        "UPENN-GBM,1,UPENN-GBM-90001_11,n/a,BraTS2021_90003,Training,,0\n"
    )


def collection(name: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for case in ("BraTS2021_90001", "BraTS2021_90002", "BraTS2021_90003"):
            touch(root / "TrainingData" / case, *(case + e for e in BRATS_ENDS))
        (root / "BraTS2021_MappingToTCIA.csv").write_text(
            MAPPING_2021 + f"{name},6,P1,n/a,BraTS2021_90001,Training,Training,1\n"
            f"{name},6,P2,n/a,BraTS2021_90002,Training,,\n"
            "TCGA-LGG,4,TCGA-DU-9901,n/a,BraTS2021_90003,Training,,0\n"
        )
        (root / "labels.csv").write_text("patient,idh,sex,age\nP1,wt,F,61\nP9,1,M,20\n")

    return build


def rembrandt(root: Path) -> None:
    for name in ("900-00-9901_2005.03.24", "HF9902_1994.04.23"):
        kinds = ("t1_LPS_rSRI", "t1ce_LPS_rSRI", "t2_LPS_rSRI", "flair_LPS_rSRI", "GlistrBoost_out")
        touch(root / "Patients_1_2" / name, *(f"{name}_{k}" for k in kinds))
    (root / "labels.csv").write_text(
        "patient,idh,grade,age\n900-00-9901,mutant,3,41\nHF9902,n/a,,\nHF9903,wt,4,70\n"
    )


def rhuh(root: Path) -> None:
    for name in ("RHUH-0901", "RHUH-0902", "RHUH-0903"):
        for session in "012":
            kinds = ("adc", "flair", "segmentations", "t1", "t1ce", "t2")
            touch(
                root / "RHUH-GBM_nii_v1" / name / session, *(f"{name}_{session}_{k}" for k in kinds)
            )
    (root / "clinical_data_TCIA_RHUH-GBM.csv").write_text(
        RHUH_HEADER
        + "RHUH-0901,1,60,M,no,4,wt\nRHUH-0902,2,50,F,no,4,NOS\nRHUH-0903,3,55,F,surgery,4,mut\n"
    )


def lgg(root: Path) -> None:
    for name in ("LGG-901", "LGG-902", "LGG-903"):
        touch(root / name, "T1", "T2", "Segmentation")
    (root / "TCIA_LGG_cases_159.csv").write_text(
        "Filename,1p/19q,Grade,Type\nLGG-901,d/d,2,Oligodendroglioma\nLGG-902,n/d,3,Astrocytoma\n"
        "LGG-903,,2,Oligoastrocytoma\n"
    )


def nnunet(root: Path) -> None:
    for name in ("glioma_001", "glioma_002"):
        touch(root / "imagesTr", *(f"{name}_000{channel}" for channel in range(4)))
        touch(root / "labelsTr", name)
    (root / "dataset.json").write_text(
        '{"channel_names": {"0": "T2-FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}}'
    )
    (root / "labels.csv").write_text("patient,idh\nglioma_001,mutant\nglioma_003,wildtype\n")


TREES: Mapping[str, Callable[[Path], None]] = {
    "bids": bids, "ucsf_pdgm": ucsf, "upenn_gbm": upenn, "egd": egd, "utsw": utsw, "tcga": tcga,
    "brats": brats, "nnunet": nnunet, "cptac_gbm": collection("CPTAC-GBM"), "ivygap": collection("IvyGAP"),
    "rembrandt": rembrandt, "rhuh_gbm": rhuh, "lgg_1p19q": lgg,
}  # fmt: skip
TABLES: Mapping[str, tuple[str, str, str]] = {
    "bids": ("participants.tsv", "participant_id", "idh"),
    "ucsf_pdgm": ("UCSF-PDGM-metadata_v5.csv", "ID", "IDH"),
    "upenn_gbm": ("UPENN-GBM_clinical_info_v2.1.csv", "ID", "MGMT"),
    "egd": ("Genetic_and_Histological_labels.csv", "Subject", "1p19q"),
    "utsw": ("UTSW_Glioma_Metadata-2-1.tsv", "Subject ID", "1p19Q CODEL"),
    "tcga": ("tcga_subtypes_ceccarelli2016.csv", "patient", "IDH.status"),
    "brats": ("BraTS2021_MappingToTCIA.csv", "BraTS2021 ID", "MGMT value"),
    "nnunet": ("labels.csv", "patient", "idh"),
    "cptac_gbm": ("labels.csv", "patient", "idh"),
    "ivygap": ("labels.csv", "patient", "idh"),
    "rembrandt": ("labels.csv", "patient", "idh"),
    "rhuh_gbm": ("clinical_data_TCIA_RHUH-GBM.csv", "Patient ID", "WHO grade"),
    "lgg_1p19q": ("TCIA_LGG_cases_159.csv", "Filename", "1p/19q"),
}
"""Of each format: its table, the column of ids, and one column of labels."""
