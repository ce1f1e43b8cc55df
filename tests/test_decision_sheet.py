"""The page with a slice of each series to decide: the right pixels, and nobody's name."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pytest
from dicom_maker import SIEMENS, Who, write_series
from matplotlib.image import imread
from pydicom.uid import RLELossless

import gliofed
from gliofed.runtime.progress import NoProgress

SILENT = dataclasses.replace(SIEMENS["T1"], description="t1_mprage_sag Rotkehl")
SHAPE = (32, 24, 12)


def take(root: Path) -> gliofed.IngestResult:
    return gliofed.intake(gliofed.IngestRequest(str(root / "in"), root / "out"), NoProgress())


def marked(data, index) -> None:
    """Bright at the first rows and columns of the middle slice; all of the others."""
    pixels = np.full((SHAPE[1], SHAPE[0]), 1000, np.int16)
    if index == SHAPE[2] // 2:
        pixels[8:], pixels[:, 16:] = 0, 0
    data.PixelData = pixels.tobytes()


def pictures(page: str) -> list[np.ndarray]:
    texts = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [imread(io.BytesIO(base64.b64decode(t)))[..., 0] for t in texts]


@pytest.mark.process
@pytest.mark.parametrize("enhanced", [None, lambda data: None], ids=["classic", "enhanced"])
def test_the_page_shows_the_middle_slice_as_stored(tmp_path, enhanced) -> None:
    write_series(tmp_path / "in", SILENT, shape=SHAPE, change=marked, enhanced=enhanced,
                 spacing=(1.0, 2.0, 1.3))  # fmt: skip
    account = take(tmp_path)
    assert account.sheet == tmp_path / "out-private/decisions.html"
    assert account.sheet.stat().st_mode & 0o777 == 0o600
    (picture,) = pictures(account.sheet.read_text())
    assert picture.shape == (160, 107)  # 48 by 32 mm
    assert picture[:40, :40].min() > 0.9
    assert picture[70:].max() < 0.1
    assert picture[:, 70:].max() < 0.1


@pytest.mark.process
def test_a_compressed_slice_is_shown(tmp_path) -> None:
    from pydicom import dcmread

    made = write_series(tmp_path / "in", SILENT, shape=SHAPE, change=marked)
    for path in made.files:
        data = dcmread(path)
        data.compress(RLELossless, generate_instance_uid=False)
        data.save_as(path)
    (picture,) = pictures(take(tmp_path).sheet.read_text())
    assert picture[:20, :20].min() > 0.9


@pytest.mark.process
def test_the_page_names_nobody_and_loads_nothing(tmp_path) -> None:
    extra = {"InstitutionName": "St. Adalbert", "StationName": "MRT7Nord"}
    who = Who(extra={**extra, "ProtocolName": "Hirn Rotkehl St. Adalbert 19610214"})
    write_series(tmp_path / "in", SILENT, who=who, number=3)
    write_series(tmp_path / "in", SIEMENS["T2"], who=who, number=4, drop=(3,))
    page = take(tmp_path).sheet.read_text()
    assert page.count("<article") == 2
    assert "t1_mprage_sag" in page
    for word in ("Rotkehl", "Wilhelmine", "4711", "Adalbert", "MRT7Nord", "19610214", "20190730"):
        assert word not in page, word
    assert "1.2.826" not in page  # no UID
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


@pytest.mark.process
def test_the_row_and_the_card_have_one_name_and_a_decision_removes_the_card(tmp_path) -> None:
    write_series(tmp_path / "in", SILENT)
    account = take(tmp_path)
    head, row = account.decisions.read_text().splitlines()
    cells = dict(zip(head.split("\t"), row.split("\t"), strict=False))
    assert f"<code>{cells['series']}</code>" in account.sheet.read_text()
    account.decisions.write_text(f"series\tdecision\n{cells['series']}\tT1\n")
    sheet = account.sheet
    assert take(tmp_path).sheet is None
    assert not sheet.exists()


@pytest.mark.process
def test_what_may_show_a_name_is_not_drawn(tmp_path) -> None:
    def burned(data, index) -> None:
        data.BurnedInAnnotation = "YES"

    write_series(tmp_path / "in", SILENT, change=burned)
    page = take(tmp_path).sheet.read_text()
    assert pictures(page) == []
    assert "No image: it cannot be read, or may show a name." in page
