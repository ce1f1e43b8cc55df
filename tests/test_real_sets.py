"""The published tables and real scans, outside the repository: every row and label counted."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from conftest import STRIPPED
from trees import touch

from gliofed.data.audit import DatasetAudit
from gliofed.data.formats import bids, brats, tcga, ucsf_pdgm, upenn_gbm
from gliofed.markers import MARKERS
from gliofed.preprocessing.recipe import prepare_case
from gliofed.study import GridConfig
from gliofed.types import UNKNOWN, Sequence

pytestmark = pytest.mark.data


@pytest.fixture
def table(real_data: Path):
    def find(name: str) -> Path:
        path = real_data.parent / "tables" / name
        if not path.is_file():
            pytest.skip(f"no {path}")
        return path

    return find


def ids(path: Path, column: str) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [row[column] for row in csv.DictReader(lines)]


def counts(audit: DatasetAudit, field: str) -> dict[str, int]:
    out: Counter[str] = Counter()
    for item in audit.mapped:
        if item.marker_or_field == field:
            out[item.value] += item.count
    return dict(out)


def kept(cases, marker: str) -> dict[object, int]:
    return dict(Counter(c.labels[marker] for c in cases))


def test_ucsf_pdgm_version_2(table, tmp_path) -> None:
    path = table("UCSF-PDGM-metadata_v2.csv")
    (tmp_path / path.name).symlink_to(path)
    for text in ids(path, "ID"):
        name = f"UCSF-PDGM-{int(text[-3:]):04d}"
        touch(tmp_path / f"{name}_nifti", f"{name}_FLAIR_bias")
    cases, audit = (reading := ucsf_pdgm.read(tmp_path, "ucsf")).cases, reading.audit
    assert (audit.found, audit.kept, len(audit.dropped)) == (501, 495, 6)
    assert [int(d.row[-3:]) for d in audit.dropped] == sorted(ucsf_pdgm.RENAMED)
    assert counts(audit, "grade") == {"2": 56, "3": 43, "4": 402}
    assert counts(audit, "mgmt") == {"methylated": 302, "unmethylated": 114, "unknown": 85}
    assert counts(audit, "idh") == {"wildtype": 398, "mutant": 103}
    assert counts(audit, "codel_1p19q") == {"intact": 395, "codeleted": 9, "unknown": 97}
    assert counts(audit, "sex") == {"M": 299, "F": 202}
    assert counts(audit, "age") == {"years": 501}
    assert kept(cases, "grade") == {"2": 56, "3": 43, "4": 396}
    assert kept(cases, "mgmt") == {"methylated": 297, "unmethylated": 113, UNKNOWN: 85}
    assert kept(cases, "idh") == {"wildtype": 392, "mutant": 103}
    assert kept(cases, "codel_1p19q") == {"intact": 389, "codeleted": 9, UNKNOWN: 97}
    assert len({c.patient for c in cases}) == 495


def test_upenn_gbm_version_1_1(table, tmp_path) -> None:
    path = table("UPENN-GBM_clinical_info_v1.1.csv")
    (tmp_path / path.name).symlink_to(path)
    for name in ids(path, "ID"):
        touch(tmp_path / "images_structural" / name, f"{name}_FLAIR")
    cases, audit = (reading := upenn_gbm.read(tmp_path, "upenn")).cases, reading.audit
    assert (audit.found, audit.kept, len(audit.dropped)) == (671, 611, 60)
    assert {d.row[-3:] for d in audit.dropped} == {"_21"}
    assert counts(audit, "idh") == {"wildtype": 546, "mutant": 19, "unknown": 106}
    assert counts(audit, "mgmt") == {"methylated": 121, "unmethylated": 170, "unknown": 380}
    assert counts(audit, "sex") == {"M": 405, "F": 266}
    assert sum(kept(cases, "idh").values()) == 611
    assert kept(cases, "codel_1p19q") == {UNKNOWN: 611}
    assert kept(cases, "grade") == {"4": 611}
    assert len({c.patient for c in cases}) == 611


def test_tcga_subtypes_and_real_scans_by_hospital(table, real_data, tmp_path) -> None:
    path = table("tcga_subtypes_ceccarelli2016.csv")
    (tmp_path / path.name).symlink_to(path)
    for item in (real_data / "brats-tcga").iterdir():
        (tmp_path / item.name).symlink_to(item)
    cases, audit = (reading := tcga.read(tmp_path, "tcga")).cases, reading.audit
    assert (audit.found, audit.kept, len(audit.dropped)) == (1122, 6, 1116)
    assert dict(audit.reasons()).keys() == {"no images in this folder"}
    assert counts(audit, "idh") == {"wildtype": 538, "mutant": 457, "unknown": 127}
    assert counts(audit, "codel_1p19q") == {"intact": 922, "codeleted": 171, "unknown": 29}
    assert counts(audit, "mgmt") == {"methylated": 613, "unmethylated": 319, "unknown": 190}
    table_only = Counter({m.value: m.count for m in audit.mapped
                          if m.marker_or_field == "grade" and m.raw in ("G2", "G3", "G4", "")})  # fmt: skip
    assert table_only == {"2": 216, "3": 241, "4": 590, "unknown": 75}
    assert counts(audit, "sex") == {"M": 618, "F": 429, "unknown": 75}
    assert Counter(c.site for c in cases) == {
        "henry-ford-hospital": 3, "case-western-st-joseph": 1, "md-anderson-cancer-center": 1,
        "ucsf": 1,
    }  # fmt: skip
    assert all(set(c.images) == set(Sequence) and c.mask for c in cases)


def test_every_tissue_source_site_of_the_table_is_a_known_hospital(table) -> None:
    codes = {name[5:7] for name in ids(table("tcga_subtypes_ceccarelli2016.csv"), "patient")}
    assert codes == set(tcga.BY_CODE)


@pytest.mark.slow
def test_the_real_brats_scans_pass_the_preoperative_gate(real_data) -> None:
    reading = brats.read(real_data / "brats-tcga", "brats")
    assert (reading.audit.found, reading.audit.kept) == (6, 6)
    assert {c.patient[:5] for c in reading.cases} == {"TCGA-"}
    entry = prepare_case(reading.cases[0], GridConfig(spacing_mm=(4.0, 4.0, 4.0)), STRIPPED)
    assert entry.mask is not None
    assert entry.mask.any()


@pytest.mark.parametrize(("group", "found"), [("tcga-lgg", 94), ("tcga-roi", 142)])
def test_the_real_bids_hospitals_keep_every_row(real_data, group, found) -> None:
    readings = [bids.read(p, p.name) for p in sorted((real_data / group).iterdir()) if p.is_dir()]
    assert sum(r.audit.kept for r in readings) == sum(r.audit.found for r in readings) == found
    people = [c.person for r in readings for c in r.cases]
    assert sum(p.sex is UNKNOWN for p in people) <= 2
    assert sum(p.age is UNKNOWN for p in people) <= 2
    for marker in MARKERS:
        assert sum(sum(counts(r.audit, marker.id).values()) for r in readings) == found
