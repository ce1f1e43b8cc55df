"""What is particular to one data set: names over versions, gates, which mask, who a patient is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import STRIPPED, write_hospital, write_image
from trees import BRATS_ENDS, MAPPING_2021, NEW_ENDS, TREES, collection, touch

import gliofed
from gliofed.data.formats import (
    bids,
    brats,
    brats_collections,
    egd,
    rembrandt,
    rhuh_gbm,
    tcga,
    ucsf_pdgm,
)
from gliofed.data.formats import lgg_1p19q as lgg
from gliofed.data.formats import upenn_gbm as upenn
from gliofed.data.formats import utsw as utsw_set
from gliofed.data.formats.mask_labels import check_mask_labels
from gliofed.data.store import PreparedStore
from gliofed.errors import DataError
from gliofed.preprocessing.cases import store_key
from gliofed.preprocessing.recipe import prepare_case
from gliofed.study import GridConfig
from gliofed.types import UNKNOWN, Case, Labels, Sequence

GRID = GridConfig(spacing_mm=(2.0, 2.0, 2.0))


def by_id(reading: gliofed.DatasetReading) -> dict[str, Case]:
    return {c.id: c for c in reading.cases}


def names(case: Case) -> set[str]:
    return {p.name for p in case.images.values()}


def test_ucsf_names_of_every_version_are_one_exam() -> None:
    assert ucsf_pdgm.exam_name("UCSF-PDGM-004") == "UCSF-PDGM-0004"
    assert ucsf_pdgm.exam_name("UCSF-PDGM-0004_nifti") == "UCSF-PDGM-0004"
    assert ucsf_pdgm.exam_name("UCSF-PDGM-138") == "UCSF-PDGM-0429_FU003d"
    assert ucsf_pdgm.exam_name("UCSF-PDGM-0429_FU003d_nifti") == "UCSF-PDGM-0429_FU003d"
    assert ucsf_pdgm.patient_of("UCSF-PDGM-0429_FU003d") == "UCSF-PDGM-0429"
    with pytest.raises(DataError, match="not an id of UCSF-PDGM"):
        ucsf_pdgm.exam_name("UCSF-PDGM-x")


def test_ucsf_takes_bias_corrected_images_and_old_names_of_t1_after_contrast(tmp_path) -> None:
    TREES["ucsf_pdgm"](tmp_path)
    folder = tmp_path / "UCSF-PDGM-v5/UCSF-PDGM-0902_nifti"
    for kind in ("T1c", "FLAIR"):
        (folder / f"UCSF-PDGM-0902_{kind}_bias.nii.gz").unlink()
    touch(folder, "UCSF-PDGM-0902_T1gad", "UCSF-PDGM-0902_FLAIR")
    cases = by_id(ucsf_pdgm.read(tmp_path, "u"))
    assert {n.partition("_")[2] for n in names(cases["UCSF-PDGM-0901"])} == {
        f"{k}_bias.nii.gz" for k in ("T1", "T1c", "T2", "FLAIR")
    }
    assert {n.partition("_")[2] for n in names(cases["UCSF-PDGM-0902"])} == {
        "T1_bias.nii.gz", "T1gad.nii.gz", "T2_bias.nii.gz", "FLAIR.nii.gz"
    }  # fmt: skip
    assert cases["UCSF-PDGM-0901"].person == dataclasses.replace(
        cases["UCSF-PDGM-0901"].person, sex="F", age=44.0
    )


def test_ucsf_version_2_hides_follow_ups_among_its_patients(tmp_path) -> None:
    TREES["ucsf_pdgm"](tmp_path)
    table = tmp_path / "UCSF-PDGM-metadata_v5.csv"
    table.write_text(table.read_text() + "UCSF-PDGM-289,M,71,4,,,wildtype,No\n")
    touch(tmp_path / "v2/UCSF-PDGM-0289_nifti", "UCSF-PDGM-0289_T1_bias")
    audit = ucsf_pdgm.read(tmp_path, "u").audit
    assert dict(audit.reasons())["follow-up exam of a patient who is in the set"] == (
        "UCSF-PDGM-0901_FU009d", "UCSF-PDGM-289",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [("IDH1 p.R132H", "mutant"), ("IDH2 p.Arg172Trp", "mutant"), ("mutated (NOS)", "mutant"),
     ("wildtype", "wildtype"), ("", UNKNOWN), ("unknown", UNKNOWN)],
)  # fmt: skip
def test_ucsf_idh(text, value) -> None:
    assert ucsf_pdgm._idh(text) == value


@pytest.mark.parametrize("text", ["IDH1 p.R100Q", "IDH1 p.R132", "mutated", "IDH3 p.R132H"])
def test_ucsf_idh_other_changes_are_no_class(text) -> None:
    with pytest.raises(ValueError, match="none of"):
        ucsf_pdgm._idh(text)


def test_ucsf_relative_codeletion_stays_unknown(tmp_path) -> None:
    TREES["ucsf_pdgm"](tmp_path)
    touch(tmp_path / "UCSF-PDGM-0903_nifti", "UCSF-PDGM-0903_T1_bias")
    case = by_id(ucsf_pdgm.read(tmp_path, "u"))["UCSF-PDGM-0903"]
    assert case.labels == Labels({"idh": "mutant", "grade": "2"})


def test_upenn_prefers_the_corrected_mask_and_refuses_follow_ups(tmp_path) -> None:
    TREES["upenn_gbm"](tmp_path)
    reading = upenn.read(tmp_path, "p")
    cases = by_id(reading)
    assert cases["UPENN-GBM-90001_11"].mask.name == "UPENN-GBM-90001_11_segm.nii.gz"
    assert cases["UPENN-GBM-90002_11"].mask.name.endswith("automated_approx_segm.nii.gz")
    assert {c.patient for c in cases.values()} == {"UPENN-GBM-90001", "UPENN-GBM-90002"}
    assert [(d.row, d.reason) for d in reading.audit.dropped] == [
        ("UPENN-GBM-90001_21", "session 21: after the first surgery")
    ]
    assert all("unstripped" not in n for c in cases.values() for n in names(c))


def test_egd_as_the_downloader_leaves_it_with_metadata_in_each_folder(tmp_path) -> None:
    TREES["egd"](tmp_path)
    (tmp_path / "Genetic_and_Histological_labels.csv").unlink()
    (tmp_path / "Genetic_and_Histological_labels.xlsx").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="a spreadsheet is not read; open it and save"):
        egd.read(tmp_path, "e")
    content = {
        "Genetic_and_Histological_labels": {"IDH": 1, "1p19q": -1, "Grade": 3},
        "Clinical_data": {"Age": 40.5, "Sex": "F"},
        "Scan_characteristics": {"Manufacturer": "Philips", "System": "Achieva", "Field": 3.0},
    }
    (tmp_path / "SUBJECTS/EGD-0901/metadata.json").write_text(json.dumps(content))
    reading = egd.read(tmp_path, "e")
    (case,) = reading.cases
    assert case.labels == Labels({"idh": "mutant", "grade": "3"})
    assert (case.person.sex, case.person.age) == ("F", 40.5)
    assert case.person.scanner == "Philips Achieva 3 T"
    assert dict(reading.audit.reasons()) == {"no row in table": ("EGD-0902",)}
    del content["Genetic_and_Histological_labels"]["IDH"]
    (tmp_path / "SUBJECTS/EGD-0901/metadata.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"EGD-0901/metadata\.json has no IDH"):
        egd.read(tmp_path, "e")


def test_egd_as_xnat_packs_it(tmp_path) -> None:
    TREES["egd"](tmp_path)
    flat = tmp_path / "SUBJECTS/EGD-0901"
    for path in list(flat.iterdir()):
        name = path.name.partition(".")[0]
        deep = flat / "scans" / name / "resources/NIFTI/files"
        deep.mkdir(parents=True)
        path.rename(deep / path.name)
    case = by_id(egd.read(tmp_path, "e"))["EGD-0901"]
    assert set(case.images) == set(Sequence)
    assert case.mask is not None
    assert (case.person.sex, case.person.age) == ("F", 39.0)
    assert by_id(egd.read(tmp_path, "e"))["EGD-0902"].person.age is UNKNOWN
    clinical = tmp_path / "Clinical_data.csv"
    clinical.write_bytes(clinical.read_bytes() + "EGD-0904;50;\xe9\n".encode("cp1252"))
    assert any("read as Windows-1252" in n for n in egd.read(tmp_path, "e").audit.notes)


def test_utsw_masks_names_scanner_and_gate(tmp_path) -> None:
    TREES["utsw"](tmp_path)
    reading = utsw_set.read(tmp_path, "s")
    cases = by_id(reading)
    assert cases["BT0901"].mask.name == "rtumorseg_manual_correction.nii.gz"
    assert cases["BT0902"].mask.name == "tumorseg_FeTS.nii.gz"
    assert cases["BT0902"].images[Sequence.FLAIR].name == "brain_flair_ants.nii.gz"
    assert cases["BT0901"].person.scanner == "Philips Ingenia 3 T"
    assert cases["BT0902"].person.scanner is UNKNOWN
    assert [(d.row, d.reason) for d in reading.audit.dropped] == [
        ("BT0903", "a scan after surgery")
    ]
    said = {(m.raw, m.value) for m in reading.audit.mapped if m.marker_or_field == "session"}
    assert said == {("Preop", "preoperative"), ("Postop", "postoperative")}


@pytest.mark.parametrize(
    ("text", "session"),
    [("Preop", "preoperative"), ("Pre-operative", "preoperative"), ("post-op", "postoperative"),
     ("Postoperative", "postoperative"), ("Resection", UNKNOWN), ("Biopsy", UNKNOWN), ("", UNKNOWN)],
)  # fmt: skip
def test_utsw_operation_status(text, session) -> None:
    assert utsw_set._session(text) == session


def test_tcga_by_hospital_with_the_corrected_mask(tmp_path) -> None:
    TREES["tcga"](tmp_path)
    reading = tcga.read(tmp_path, "tcga")
    assert {c.id: c.site for c in reading.cases} == {
        "TCGA-06-9901": "henry-ford-hospital", "TCGA-FG-9902": "case-western",
    }  # fmt: skip
    cases = by_id(reading)
    assert cases["TCGA-06-9901"].mask.name.endswith("_GlistrBoost_ManuallyCorrected.nii.gz")
    assert cases["TCGA-FG-9902"].mask.name.endswith("_GlistrBoost.nii.gz")
    assert cases["TCGA-06-9901"].images[Sequence.T1].name.endswith("_t1.nii.gz")
    assert cases["TCGA-06-9901"].images[Sequence.T1CE].name.endswith("_t1Gd.nii.gz")


def test_tcga_hospitals_have_each_code_once() -> None:
    codes = [c for own in tcga.HOSPITALS.values() for c in own]
    assert len(codes) == len(set(codes)) == len(tcga.BY_CODE)


def test_tcga_labels_under_the_names_of_the_paper(tmp_path) -> None:
    for name in ("a", "b"):
        TREES["tcga"](tmp_path / name)
    old = tmp_path / "b/tcga_subtypes_ceccarelli2016.csv"
    text = old.read_text()
    for ours, theirs in (
        ("patient", "Case"), ("IDH.status", "IDH status"),
        ("X1p.19q.codeletion", "1p/19q codeletion"),
        ("MGMT.promoter.status", "MGMT promoter status"),
        ("Age..years.at.diagnosis.", "Age (years at diagnosis)"),
    ):  # fmt: skip
        text = text.replace(ours, theirs)
    old.rename(old.with_name("1-s2.0-S0092867415016929-mmc2.csv")).write_text(text)
    first, second = (by_id(tcga.read(tmp_path / n, "t")) for n in ("a", "b"))
    assert {k: (c.labels, c.person) for k, c in first.items()} == {
        k: (c.labels, c.person) for k, c in second.items()
    }


def test_tcga_from_brats_folders_leaves_other_patients_out(tmp_path) -> None:
    TREES["tcga"](tmp_path)
    for case in ("BraTS20_Training_901", "BraTS20_Training_902"):
        touch(tmp_path / case, *(case + e for e in BRATS_ENDS), end=".nii")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2020_subject_ID,TCGA_TCIA_subject_ID\n"
        "LGG,NA,BraTS20_Training_901,TCGA-HT-9903\nHGG,NA,BraTS20_Training_902,NA\n"
    )
    reading = tcga.read(tmp_path, "t")
    case = by_id(reading)["TCGA-HT-9903"]
    assert case.site == "case-western-st-joseph"
    assert case.labels["codel_1p19q"] == "codeleted"
    assert names(case) == {f"BraTS20_Training_901{e}.nii" for e in BRATS_ENDS[:4]}
    assert ("BraTS20_Training_902", "not a TCGA patient by the mapping table") in {
        (d.row, d.reason) for d in reading.audit.dropped
    }


@pytest.mark.parametrize(
    ("case", "ends", "labels"),
    [("Brats18_TCIA02_901_1", BRATS_ENDS, {1, 2, 4}), ("Brats18_CBICA_AAB_1", BRATS_ENDS, {1, 2, 4}),
     ("BraTS20_Training_901", BRATS_ENDS, {1, 2, 4}), ("BraTS2021_90001", BRATS_ENDS, {1, 2, 4}),
     ("BraTS-GLI-90001-000", NEW_ENDS, {1, 2, 3}), ("BraTS-SSA-90001-000", NEW_ENDS, {1, 2, 3})],
)  # fmt: skip
def test_brats_of_every_year(tmp_path, case, ends, labels) -> None:
    touch(tmp_path / "HGG" / case, *(case + e for e in ends))
    (found,) = brats.read(tmp_path, "b").cases
    assert found.mask.name == f"{case}{ends[4]}.nii.gz"
    assert [p.name for p in (found.images[s] for s in Sequence)] == [
        f"{case}{e}.nii.gz" for e in ends[:4]
    ]
    assert found.mask_labels == labels


def test_brats_after_treatment_and_other_tumours_are_refused(tmp_path) -> None:
    for case in ("BraTS-GLI-90001-000", "BraTS-GLI-90001-001", "BraTS-GLI-90002-099",
                 "BraTS-GLI-90002-100", "BraTS-MEN-90003-000"):  # fmt: skip
        touch(tmp_path / case, *(case + e for e in NEW_ENDS))
    reading = brats.read(tmp_path, "b")
    assert {c.id: c.patient for c in reading.cases} == {
        "BraTS-GLI-90001-000": "BraTS-GLI-90001", "BraTS-GLI-90001-001": "BraTS-GLI-90001",
        "BraTS-GLI-90002-099": "BraTS-GLI-90002",
    }  # fmt: skip
    reasons = {d.row: d.reason for d in reading.audit.dropped}
    assert "resection cavity" in reasons["BraTS-GLI-90002-100"]
    assert reasons["BraTS-MEN-90003-000"] == "BraTS-MEN is not adult glioma"
    assert any("no mapping table" in n for n in reading.audit.notes)


def test_brats_patients_are_named_as_the_sets_they_come_from_name_them(tmp_path) -> None:
    TREES["brats"](tmp_path)
    mapping = tmp_path / "BraTS2021_MappingToTCIA.csv"
    for n, row in enumerate(("UPENN-GBM,1,UPENN-GBM-90001_11", "UCSF-PDGM,18,7",
                             "Collection 5,4,new-not-previously-in-TCIA"), start=4):  # fmt: skip
        case = f"BraTS2021_9000{n}"
        touch(tmp_path / case, *(case + e for e in BRATS_ENDS))
        mapping.write_text(mapping.read_text() + f"{row},n/a,{case},Training,,\n")
    assert {c.id: c.patient for c in brats.read(tmp_path, "b").cases} == {
        "BraTS2021_90001": "TCGA-06-9901",
        "BraTS2021_90002": "UCSF-PDGM-0429",  # 138 is the follow-up of 429
        "BraTS2021_90004": "UPENN-GBM-90001",
        "BraTS2021_90005": "UCSF-PDGM-0007",
        "BraTS2021_90006": "BraTS2021_90006",
    }


def test_brats_reads_the_year_that_its_folders_are_of(tmp_path) -> None:
    case = "BraTS-GLI-90001-000"
    touch(tmp_path / case, *(case + e for e in NEW_ENDS))
    (tmp_path / "BraTS2023_2017_GLI_Mapping.csv").write_text(
        "BraTS2023;BraTS2021;BraTS2020;Cohort Name (if publicly available);Site No;Local ID \n"
        f"{case};BraTS2021_90001;NA;TCGA-LGG;4;TCGA-DU-9901\n"
        "NA;BraTS2021_90002;NA;Private;4;NA\n"
    )
    reading = brats.read(tmp_path, "b")
    assert [c.patient for c in reading.cases] == ["TCGA-DU-9901"]
    assert reading.audit.notes == (
        "1 rows of BraTS2023_2017_GLI_Mapping.csv are of no case of this release",
    )


def test_brats_misnamed_mask_and_own_labels(tmp_path) -> None:
    case = "BraTS20_Training_355"
    touch(tmp_path / case, *(case + e for e in BRATS_ENDS[:4]), "W39_1998.09.19_Segm", end=".nii")
    (tmp_path / "labels.csv").write_text(f"patient;grade;idh\n{case};IV;WT\n")
    (found,) = brats.read(tmp_path, "b").cases
    assert found.mask.name == "W39_1998.09.19_Segm.nii"
    assert found.labels == Labels({"idh": "wildtype", "grade": "4"})


def test_a_collection_leaves_the_others_out_and_own_labels_go_first(tmp_path) -> None:
    TREES["cptac_gbm"](tmp_path)
    reading = brats_collections.read_cptac(tmp_path, "c")
    assert dict(reading.audit.reasons()) == {
        "of another collection (TCGA-LGG)": ("BraTS2021_90003",)
    }
    (tmp_path / "labels.csv").write_text("patient,mgmt,grade\nP1,0,3\n")
    first = brats_collections.read_cptac(tmp_path, "c").cases[0]
    assert first.labels == Labels({"mgmt": "unmethylated", "grade": "3"})
    (tmp_path / "BraTS2021_MappingToTCIA.csv").write_text(MAPPING_2021)
    with pytest.raises(DataError, match="the cases of CPTAC-GBM are identified by that table"):
        brats_collections.read_cptac(tmp_path, "c")


def test_rembrandt_as_published_and_among_brats_cases(tmp_path) -> None:
    TREES["rembrandt"](tmp_path / "own")
    one, two = rembrandt.read(tmp_path / "own", "r").cases
    assert (one.patient, two.patient) == ("900-00-9901", "HF9902")
    assert one.images[Sequence.T1CE].name == "900-00-9901_2005.03.24_t1ce_LPS_rSRI.nii.gz"
    folder = two.mask.parent
    two.mask.rename(folder / "HF9902_1994.04.23_GlistrBoost_out-labels.nii")
    again = rembrandt.read(tmp_path / "own", "r").cases[1]
    assert again.mask.name == "HF9902_1994.04.23_GlistrBoost_out-labels.nii"
    collection("REMBRANDT")(tmp_path / "brats")
    found = by_id(rembrandt.read(tmp_path / "brats", "r"))
    assert {c.patient for c in found.values()} == {"P1", "P2"}
    assert found["BraTS2021_90001"].labels == Labels({"mgmt": "methylated", "idh": "wildtype"})


def test_rhuh_keeps_first_scans_of_untreated_patients(tmp_path) -> None:
    TREES["rhuh_gbm"](tmp_path)
    reading = rhuh_gbm.read(tmp_path, "r")
    assert [p.parent.name for c in reading.cases for p in c.images.values()] == ["0"] * 8
    reasons = {d.row: d.reason for d in reading.audit.dropped}
    assert reasons["RHUH-0903"] == "operated on or treated before"
    assert reasons["RHUH-0901/1"] == "session 1: after surgery"


def test_lgg_never_takes_a_mask_of_three_slices(tmp_path) -> None:
    TREES["lgg_1p19q"](tmp_path)
    cases = lgg.read(tmp_path, "m").cases
    assert all(c.mask is None for c in cases)
    assert cases[0].images[Sequence.T1CE].name == "T1.nii.gz"


def test_bids_knows_its_people_and_says_what_it_could_not_read(tmp_path) -> None:
    TREES["bids"](tmp_path)
    (tmp_path / "sub-02/anat/sub-02_FLAIR.json").write_text("{")
    reading = bids.read(tmp_path, "h")
    one, two = reading.cases
    assert (one.person.sex, one.person.age) == ("F", 44.0)
    assert one.person.scanner == "Siemens Skyra 3 T"
    assert (two.person.sex, two.person.age, two.person.scanner) == (UNKNOWN,) * 3
    assert reading.audit.dropped[0].row == "sub-03"
    assert any("sub-02_FLAIR.json" in n for n in reading.audit.notes)


def case_with_mask(tmp_path: Path, values: set[int], allowed: set[int]) -> Case:
    root = write_hospital(tmp_path / "h", {"A": ("1", "0", "1", "3")})
    (case,) = bids.read_bids(root, "h")
    drawn = np.zeros((20, 24, 18), np.uint8)
    for n, value in enumerate(sorted(values)):
        drawn[8 + n, 10:14, 8:11] = value
    write_image(case.mask, drawn)
    return dataclasses.replace(case, mask_labels=frozenset(allowed))


@pytest.mark.parametrize(
    ("values", "allowed"),
    [({1, 2, 3}, {1, 2, 3}), ({1, 2, 4}, {1, 2, 4}), ({1}, {1, 2, 4}), ({1, 2, 3, 4}, set())],
)
def test_masks_that_hold_to_their_convention_are_prepared(tmp_path, values, allowed) -> None:
    entry = prepare_case(case_with_mask(tmp_path, values, allowed), GRID, STRIPPED)
    assert entry.mask is not None
    assert set(np.unique(entry.mask)) == {0, 1}


def test_a_mask_with_a_resection_cavity_is_refused_where_it_is_read(tmp_path) -> None:
    case = case_with_mask(tmp_path, {1, 2, 3, 4}, {1, 2, 3})
    with pytest.raises(
        DataError, match=r"h/A: .*holds label 4; .*hold 1, 2, 3\..*resection cavity"
    ):
        prepare_case(case, GRID, STRIPPED)
    store = PreparedStore(tmp_path / "store")
    free = dataclasses.replace(case, mask_labels=frozenset())
    assert store_key(case, GRID, STRIPPED, store) != store_key(free, GRID, STRIPPED, store)


def test_a_fractional_label_is_no_label(tmp_path) -> None:
    case = case_with_mask(tmp_path, {1}, {1, 2, 4})
    check_mask_labels(case, [1.0, 4.0])
    with pytest.raises(DataError, match=r"label 1\.5"):
        check_mask_labels(case, [1.0, 1.5])
