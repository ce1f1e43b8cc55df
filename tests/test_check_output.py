"""The result of `gliofed check`: command, JSON, sheet and the documents' table of codes."""

from __future__ import annotations

import html
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from malformed import FILES, at, cells, image, swap, write_healthy
from typer.testing import CliRunner

import gliofed
from gliofed.cli.main import app
from gliofed.errors import DataError
from gliofed.runtime.printable import LONGEST
from gliofed.types import SEQUENCES, Sequence
from gliofed.validation.case_checks import check_case
from gliofed.validation.codes import CODES, Severity
from gliofed.validation.findings import Finding, sort_findings
from gliofed.validation.html_sheet import render_sheet
from gliofed.validation.locate import locate
from gliofed.validation.patient_table import check_table
from gliofed.validation.scan import read_scan

ROOT = Path(__file__).parents[1]


@pytest.fixture
def hospitals(tmp_path):
    return write_healthy(tmp_path / "data")


# --- the command --------------------------------------------------------------------------------


@pytest.mark.process
def test_a_healthy_folder_ends_with_0_and_a_fault_with_1(hospitals, tmp_path) -> None:
    runner = CliRunner()
    fine = runner.invoke(app, ["check", str(hospitals)])
    assert fine.exit_code == 0, fine.output
    assert "2 cases, 1 tables" in fine.output
    assert "0 errors, 0 warnings, 0 notes" in fine.output
    swap(hospitals)  # a warning does not fail
    assert runner.invoke(app, ["check", str(hospitals)]).exit_code == 0
    at(hospitals, "T2").write_bytes(b"")
    out = tmp_path / "out.json"
    broken = runner.invoke(app, ["check", str(hospitals), "--json", str(out)])
    assert broken.exit_code == 1
    assert "FILE-EMPTY" in broken.output
    assert "SET-SWAPPED" in broken.output
    assert "Cure: copy the file again" in broken.output
    assert "Research use only" in broken.output
    value = json.loads(out.read_text())
    assert (value["cases"], value["errors"], value["warnings"]) == (2, 1, 1)
    first = value["findings"][0]
    assert first == {
        "code": "FILE-EMPTY", "severity": "error", "case": "north/01",
        "file": "north/sub-01/anat/sub-01_T2w.nii.gz", "text": "0 bytes",
        "cure": next(c.cure for c in CODES if c.id == "FILE-EMPTY"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.process
def test_a_path_that_does_not_exist_is_one_line(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gliofed.cli.main", "check", str(tmp_path / "gone")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no such file or folder" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(DataError, match="no such file or folder"):
        gliofed.check(tmp_path / "gone")


@pytest.mark.process
def test_many_findings_of_one_code_are_cut_short(hospitals) -> None:
    for number in range(30):
        shutil.copy(
            at(hospitals, "T2"), at(hospitals, "T2").with_name(f"sub-01_x{number}_PD.nii.gz")
        )
    shown = CliRunner().invoke(app, ["check", str(hospitals)]).output
    assert "SET-UNKNOWN-IMAGE (30)" in shown
    assert "and 20 more" in shown


# --- what lies where ----------------------------------------------------------------------------


def test_one_hospital_many_case_folders_one_image_and_one_table(hospitals, tmp_path) -> None:
    above, _ = locate(hospitals)
    below, _ = locate(hospitals / "north")
    assert [p.name for s in above for p in s.cases] == ["north/01", "north/02"]
    assert above == below
    place = above[0].cases[0]
    assert set(place.images) == set(SEQUENCES)
    assert list(place.masks) == ["mask"]
    ((single,), _) = locate(at(hospitals, "T2"))
    assert list(single.cases[0].images) == [Sequence.T2]
    ((seg,), _) = locate(at(hospitals, "mask"))
    assert (dict(seg.cases[0].images), list(seg.cases[0].masks)) == ({}, ["mask"])
    ((table,), _) = locate(hospitals / "north/participants.tsv")
    assert len(table.tables) == 1


@pytest.mark.parametrize("given", ["north/sub-02", "north/sub-02/anat"])
def test_a_bids_subject_is_the_same_case_alone_and_in_its_hospital(hospitals, given) -> None:
    ((hospital,), _) = locate(hospitals / "north")
    ((alone,), findings) = locate(hospitals / given)
    assert (alone.root, alone.cases, findings) == (hospital.root, hospital.cases[1:], ())


def test_the_present_folder_has_a_name(hospitals, monkeypatch) -> None:
    monkeypatch.chdir(hospitals / "north")
    ((site,), _) = locate(Path())
    assert site.name == "north"


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("BraTS20_Training_001_t1ce", Sequence.T1CE), ("BraTS-GLI-00000-000-t1c", Sequence.T1CE),
        ("BraTS-GLI-00000-000-t1n", Sequence.T1), ("BraTS-GLI-00000-000-t2f", Sequence.FLAIR),
        ("BraTS-GLI-00000-000-t2w", Sequence.T2), ("UPENN-GBM-00001_11_T1GD", Sequence.T1CE),
        ("brain_fl_ants", Sequence.FLAIR), ("UCSF-PDGM-0004_T1gad", Sequence.T1CE),
        ("TCGA-02-0006_flair", Sequence.FLAIR), ("BraTS20_Training_001_seg", None),
        ("UCSF-PDGM-0004_tumor_segmentation", None), ("UCSF-PDGM-0004_ADC", "unknown"),
    ],
)  # fmt: skip
def test_names_of_case_folders(tmp_path, name, sequence) -> None:
    folder = tmp_path / "set" / "case"
    folder.mkdir(parents=True)
    (folder / f"{name}.nii.gz").write_bytes(b"")
    (site,), odd = locate(tmp_path / "set")
    place = site.cases[0]
    if sequence == "unknown":
        assert [f.code for f in odd] == ["SET-UNKNOWN-IMAGE"]
    elif sequence is None:
        assert list(place.masks) == [name]
    else:
        assert list(place.images) == [sequence]


@pytest.mark.parametrize(
    ("files", "images", "masks", "odd"),
    [
        (["x_T1", "x_T1_bias", "x_T1c", "x_T1c_bias", "x_FLAIR", "x_T2", "x_ADC",
          "x_tumor_segmentation", "x_brain_segmentation", "x_brain_parenchyma_segmentation"],
         4, ["x_tumor_segmentation"], 5),
        (["brain_fl_ants", "brain_t1_ants", "brain_t1ce_ants", "brain_t2_ants", "tumorseg_FeTS",
          "tumorseg_manual_correction"], 4, ["tumorseg_FeTS", "tumorseg_manual_correction"], 0),
        (["FLAIR", "T1", "T1GD", "T2", "MASK"], 4, ["MASK"], 0),
    ],
    ids=["UCSF-PDGM", "UTSW", "EGD"],
)  # fmt: skip
def test_files_of_published_sets(tmp_path, files, images, masks, odd) -> None:
    (tmp_path / "set/x").mkdir(parents=True)
    for name in files:
        (tmp_path / f"set/x/{name}.nii.gz").write_bytes(b"")
    (site,), findings = locate(tmp_path / "set")
    assert len(site.cases[0].images) == images
    assert list(site.cases[0].masks) == masks
    assert [f.code for f in findings] == ["SET-UNKNOWN-IMAGE"] * odd


def test_cases_below_a_folder_beside_case_folders_are_found_too(tmp_path) -> None:
    for folder in ("set/x", "set/structural/y", "set/structural/z"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "c_flair.nii.gz").write_bytes(b"")
    sites, _ = locate(tmp_path / "set")
    assert {c.name for s in sites for c in s.cases} == {"set/x", "structural/y", "structural/z"}


@pytest.mark.process
def test_a_pile_of_masks_is_a_case_each(hospitals, tmp_path) -> None:
    for name in ("a_segm", "b_segm"):
        (tmp_path / "segm").mkdir(exist_ok=True)
        shutil.copy(at(hospitals, "mask"), tmp_path / f"segm/{name}.nii.gz")
    result = gliofed.check(tmp_path / "segm")
    assert (result.cases, result.findings) == (2, ())


@pytest.mark.process
def test_a_date_in_a_header_is_not_repeated(hospitals) -> None:
    from malformed import text

    text(hospitals, b"DOE^JOHN 19700214")
    (finding,) = gliofed.check(hospitals).findings
    assert finding.code == "NII-PATIENT"
    assert "DOE" not in str(finding.row())
    assert "1970" not in str(finding.row())


def test_findings_are_ordered_printable_and_single() -> None:
    rows = [Finding("SET-GRIDS", "b", "", "x"), Finding("NII-4D", "b", "", "x"),
            Finding("NII-4D", "a", "", "x" * 1000), Finding("NII-4D", "a", "", "x" * 1000),
            Finding("IMG-FEW-VALUES", "a\x1b[31m\nb", "", "x")]  # fmt: skip
    got = sort_findings(rows)
    assert [(f.code, f.case[0]) for f in got] == [
        ("NII-4D", "a"), ("NII-4D", "b"), ("IMG-FEW-VALUES", "a"), ("SET-GRIDS", "b")
    ]  # fmt: skip
    assert len(got[0].text) == LONGEST
    assert all(f.case.isprintable() for f in got)


# --- bounds of the heuristics -------------------------------------------------------------------


def test_a_swap_is_seen_and_the_right_order_is_not(hospitals) -> None:
    places = locate(hospitals)[0][0].cases
    for place in places:
        images = {s: read_scan(p)[0] for s, p in place.images.items()}
        assert check_case(images, {})[0] == []
        turned = images | {Sequence.T1: images[Sequence.T1CE], Sequence.T1CE: images[Sequence.T1]}
        assert [f.code for _, f in check_case(turned, {})[0]] == ["SET-SWAPPED"]


@pytest.mark.parametrize(
    ("column", "cell", "code"),
    [("age", "120", None), ("age", "120.5", "TAB-AGE"), ("age", "18", None),
     ("age", "17.9", "TAB-CHILD"), ("age", "89+", None), ("age", "0", "TAB-AGE"), ("age", "", None),
     ("sex", "female", None), ("sex", "x", "TAB-SEX"), ("sex", "n/a", None),
     ("idh", "Mutant", None), ("idh", "mut", "TAB-VALUE")],
)  # fmt: skip
def test_both_sides_of_what_a_cell_may_hold(hospitals, column, cell, code) -> None:
    cells(hospitals, **{column: cell})
    found = check_table(hospitals / "north/participants.tsv", "t", "north", None, {})
    assert [f.code for f in found] == ([code] if code else [])


@pytest.mark.process
def test_ten_voxels_are_a_mask_and_nine_a_speck(hospitals) -> None:
    def only(count: int):
        def change(a: np.ndarray) -> np.ndarray:
            out = np.zeros_like(a).ravel()
            out[np.flatnonzero(a)[:count]] = 1
            return out.reshape(a.shape)

        return change

    for count, expected in ((9, ["SET-MASK-SPECK"]), (10, [])):
        write_healthy(hospitals)
        image(hospitals, only(count), "mask")
        assert [f.code for f in gliofed.check(hospitals).findings] == expected


# --- the sheet ----------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags that are open, and every address."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str]] = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [v for k, v in attributes if k in ("src", "href", "action")]
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.process
def test_the_sheet_stands_alone_and_shows_every_case(hospitals, tmp_path) -> None:
    out = tmp_path / "sheet.html"
    result = gliofed.check(hospitals, sheet=out)
    page = Page()
    page.feed(out.read_text())
    assert page.open == []
    assert all(a.startswith(("data:", "#")) for a in page.addresses)
    assert len(page.images) == 2
    assert all(i["alt"] for i in page.images)
    assert "Research use only" in out.read_text()
    assert "http" not in re.sub(r"data:[^\"]+", "", out.read_text()).replace("http-equiv", "")
    assert len(result.thumbnails) == 2
    assert out.stat().st_size < 150_000


@pytest.mark.process
def test_the_picture_has_the_outline_where_the_mask_is(hospitals) -> None:
    picture = gliofed.check(hospitals, sheet=hospitals / "s.html").thumbnails[0]
    pixels = decode(picture.png)
    assert pixels.shape == (3 * 112, 4 * 112)
    orange = pixels == 64
    rows, columns = np.nonzero(orange[:112, :112])  # axial, first sequence
    assert columns.mean() > 56  # the tumour is at the patient's left: right in the picture
    assert rows.mean() < 56  # in front: up
    rows, columns = np.nonzero(orange[224:, :112])  # sagittal: front on the left
    assert columns.mean() < 56
    assert rows.mean() < 56
    per_column = [orange[:, c * 112 : (c + 1) * 112].sum() for c in range(4)]
    assert len(set(per_column)) == 1  # the same outline over every sequence


def decode(png: bytes) -> np.ndarray:
    """A palette PNG without filters, checked as it is read."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at_byte = {}, 8
    while at_byte < len(png):
        (size,) = struct.unpack(">I", png[at_byte : at_byte + 4])
        kind, body = png[at_byte + 4 : at_byte + 8], png[at_byte + 8 : at_byte + 8 + size]
        (crc,) = struct.unpack(">I", png[at_byte + 8 + size : at_byte + 12 + size])
        assert crc == zlib.crc32(kind + body)
        parts[kind], at_byte = body, at_byte + 12 + size
    width, height = struct.unpack(">2I", parts[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


@pytest.mark.process
def test_names_in_the_sheet_are_escaped(hospitals, tmp_path) -> None:
    evil = hospitals / "<script>alert(1)</script>".replace("/", "_")
    (hospitals / "north").rename(evil)
    at_evil = evil / "sub-01/anat/sub-01_<b>x<_b>_T2star.nii.gz"
    at_evil.write_bytes(b"")
    out = tmp_path / "sheet.html"
    gliofed.check(hospitals, sheet=out)
    text = out.read_text()
    assert "<script" not in text
    assert "<b>x" not in text
    assert html.escape("<script>") in text


@pytest.mark.process
def test_a_case_that_cannot_be_shown_says_so(hospitals) -> None:
    for name in (*FILES, "mask"):
        at(hospitals, name).write_bytes(b"")
    result = gliofed.check(hospitals, sheet=hospitals / "s.html")
    assert "No image could be read" in render_sheet(result)
    assert result.count(Severity.ERROR) == 5


# --- the documents ------------------------------------------------------------------------------


def test_the_reference_has_every_code_as_it_is() -> None:
    text = (ROOT / "docs/reference/check-codes.md").read_text()
    rows = re.findall(r"^\| `([A-Z0-9-]+)` \| (\w+) \| (.+?) \| (.+?) \|$", text, re.M)
    assert rows == [(c.id, c.severity.value, c.title, c.cure) for c in CODES]
    assert len({c.id for c in CODES}) == len(CODES)


# --- real cases ---------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "cases", "seconds_a_case"),
    [("tcga-lgg", 94, 1.0), ("tcga-roi", 142, 1.0), ("brats-tcga", 6, 10.0)],
)
def test_real_cases_have_no_error(real_data, tmp_path, folder, cases, seconds_a_case) -> None:
    result = gliofed.check(real_data / folder, sheet=tmp_path / "sheet.html")
    assert result.cases == cases
    assert [f.row() for f in result.findings if f.severity is Severity.ERROR] == []
    suspicions = Counter(f.code for f in result.findings if f.code.startswith(("SET-", "IMG-")))
    allowed = {"SET-SEQUENCE-MISSING", "SET-SEQUENCE-NEVER", "SET-VOLUME"}
    assert set(suspicions) <= allowed
    assert suspicions["SET-VOLUME"] <= 3  # of tcga-lgg, whose slice spacing is estimated
    assert all(p.png for p in result.thumbnails)
    assert result.seconds < cases * seconds_a_case


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tcga-lgg", "tcga-roi", "brats-tcga"])
def test_swapped_and_mirrored_real_cases_are_suspected(real_data, folder) -> None:
    swaps, mirrors = [], []
    for site in locate(real_data / folder)[0]:
        for place in site.cases:
            images = {s: read_scan(p)[0] for s, p in place.images.items()}
            mask = read_scan(next(iter(place.masks.values())))[0]
            if {Sequence.T1, Sequence.T1CE} <= set(images):
                turned = images | {
                    Sequence.T1: images[Sequence.T1CE], Sequence.T1CE: images[Sequence.T1]
                }  # fmt: skip
                found, _ = check_case(turned, {})
                swaps.append("SET-SWAPPED" in {f.code for _, f in found})
            if folder != "tcga-roi":
                mask.small[:] = mask.small[::-1].copy()
                found, _ = check_case(images, {"mask": mask})
                mirrors.append(any(f.code.startswith("SET-MASK") for _, f in found))
    print(
        f"{folder}: swaps {sum(swaps)}/{len(swaps)}, mirrored masks {sum(mirrors)}/{len(mirrors)}"
    )
    assert np.mean(swaps) >= 0.98
    assert not mirrors or np.mean(mirrors) >= 0.9
