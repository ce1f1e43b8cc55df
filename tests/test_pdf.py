"""A PDF in the study of its source series: what is kept, and what is refused."""

from __future__ import annotations

import io

import dicom_series as dicom
import numpy as np
import pydicom
import pytest
from dicom_series import validated
from matplotlib.figure import Figure
from test_sr import REPORT, consistent

from gliofed.dicom import pdf as module
from gliofed.dicom.pdf import build_pdf, write_pdf
from gliofed.dicom.seg import MaskAuthor, write_segmentation
from gliofed.dicom.source_series import read_series
from gliofed.dicom.sr import write_report
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY

STREAM = b"%PDF-1.5\n1 0 obj\n<</Type/XRef>>\nendobj\nstartxref\n9\n%%EOF"
"""A table that is an object, as since PDF 1.5."""


@pytest.fixture(scope="module")
def pages() -> bytes:
    figure, buffer = Figure((2, 2)), io.BytesIO()
    figure.text(0.2, 0.5, "Bericht")
    figure.savefig(buffer, format="pdf")
    return buffer.getvalue()


@pytest.fixture
def flair(tmp_path):
    return dicom.write_series(tmp_path / "flair", dicom.Made())


def test_the_pages_come_back_byte_by_byte(flair, pages, tmp_path) -> None:
    for number, data in enumerate((pages, pages + b"\n", STREAM, STREAM + b"\r\n")):
        out = tmp_path / f"{number}.dcm"
        write_pdf(data, flair, out, "Report of sub-7")
        made = pydicom.dcmread(out)
        assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
        assert len(made.EncapsulatedDocument) % 2 == 0
        assert made.EncapsulatedDocument[: made.EncapsulatedDocumentLength] == data
        assert made.MIMETypeOfEncapsulatedDocument == "application/pdf"
        assert made.DocumentTitle == "Report of sub-7"
    assert len({len(pages) % 2, len(pages + b"\n") % 2}) == 2


def test_it_is_filed_with_its_source(flair, pages, tmp_path) -> None:
    write_pdf(pages, flair, tmp_path / "p.dcm", "Report")
    made, source = pydicom.dcmread(tmp_path / "p.dcm"), pydicom.dcmread(flair / "000.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
                 "StudyDate", "StudyTime", "AccessionNumber", "StudyID",
                 "SpecificCharacterSet"):  # fmt: skip
        assert made[name].value == source[name].value, name
    assert made.StudyDate == "20240229"
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert (made.Modality, made.SeriesNumber) == ("DOC", 3005)
    assert RESEARCH_USE_ONLY in made.SeriesDescription
    assert made.ContentDate
    assert made.BurnedInAnnotation == "YES"


def test_validators_find_no_fault_in_all_that_is_made(flair, pages, tmp_path) -> None:
    mask = np.zeros((20, 24, 10), bool)
    mask[5:9, 6:10, 3:6] = True
    seg, sr, pdf = (tmp_path / f"{n}.dcm" for n in ("seg", "sr", "pdf"))
    write_segmentation(mask, dicom.Made().affine(), flair, seg, MaskAuthor("3f2a9c"))
    write_report(REPORT, flair, sr, segmentation=seg)
    write_pdf(pages, flair, pdf, "Bericht über Fall 7")
    assert validated("dciodvfy", pdf) == ["EncapsulatedPDF"]
    assert consistent(seg, sr, pdf, *flair.iterdir()) == []


def test_an_empty_study_date_would_be_found(flair, pages, tmp_path) -> None:
    """The validator of entities is worth its name: what only it sees, it sees."""
    write_pdf(pages, flair, tmp_path / "p.dcm", "Report")
    made = pydicom.dcmread(tmp_path / "p.dcm")
    made.StudyDate = ""
    made.save_as(tmp_path / "p.dcm")
    assert not any(s.startswith("Error") for s in validated("dciodvfy", tmp_path / "p.dcm"))
    said = consistent(tmp_path / "p.dcm", *flair.iterdir())
    assert any("StudyDate" in s for s in said)


def test_what_is_no_whole_pdf_is_refused(flair, pages, tmp_path) -> None:
    out = tmp_path / "out/p.dcm"
    for cut in (2, 6, 7, 40, 200, len(pages) // 2, len(pages) - 5):
        with pytest.raises(DataError, match="not the whole of a PDF"):
            write_pdf(pages[:-cut], flair, out, "Report")
    for data in (b"", b"PDF", b"\x89PNG", b" " + pages):
        with pytest.raises(DataError, match="expected a PDF's '%PDF-'"):
            write_pdf(data, flair, out, "Report")
    middle = len(pages) // 2
    for data in (pages[:middle] + pages[middle + 9 :], pages + b"more", b"%PDF-%%EOF",
                 STREAM.replace(b"startxref\n9", b"startxref\n999999"),
                 STREAM.replace(b"startxref\n9", b"startxref\n0")):  # fmt: skip
        with pytest.raises(DataError, match="not the whole of a PDF"):
            write_pdf(data, flair, out, "Report")
    assert not out.parent.exists()


@pytest.mark.parametrize(("title", "says"), [
    ("", "title: is empty"), ("two\nlines", "expected one line"), ("x" * 1025, "at most 1024"),
    ("a\x00", "holds"),
])  # fmt: skip
def test_titles_that_cannot_be_said(title, says, flair, pages, tmp_path) -> None:
    with pytest.raises(DataError, match=says):
        write_pdf(pages, flair, tmp_path / "p.dcm", title)
    assert not (tmp_path / "p.dcm").exists()


@pytest.mark.parametrize("title", ["x" * 1024, "腫瘍の報告", "Größe 7 ß", "a\\b"])
def test_titles_that_can(title, flair, pages, tmp_path) -> None:
    write_pdf(pages, flair, tmp_path / "p.dcm", title)
    assert pydicom.dcmread(tmp_path / "p.dcm").DocumentTitle == title
    assert pydicom.dcmread(tmp_path / "p.dcm").PatientName == "Müller^Jörg"


def test_sources_without_patient_data_still_work(pages, tmp_path) -> None:
    def bare(ds, index):
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                     "StudyTime", "StudyID", "AccessionNumber", "SeriesNumber"):  # fmt: skip
            delattr(ds, name)

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=bare)
    write_pdf(pages, folder, tmp_path / "p.dcm", "Report")
    said = validated("dciodvfy", tmp_path / "p.dcm")
    assert [s for s in said if "needed to build DICOMDIR" not in s] == ["EncapsulatedPDF"]


def test_a_file_that_is_there_is_kept(flair, pages, tmp_path) -> None:
    (tmp_path / "p.dcm").write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        write_pdf(pages, flair, tmp_path / "p.dcm", "Report")
    assert (tmp_path / "p.dcm").read_text() == "mine"


@pytest.mark.parametrize("harm", ["pages", "title", "patient"])
def test_a_faulty_document_is_never_written(harm, flair, pages, monkeypatch) -> None:
    encode = module.encode

    def faulty(document):
        if harm == "pages":
            document.EncapsulatedDocument = document.EncapsulatedDocument[::-1]
        elif harm == "title":
            document.DocumentTitle = "other"
        else:
            del document.PatientName  # the element is the source's own
            document.PatientName = "other"
        return encode(document)

    monkeypatch.setattr(module, "encode", faulty)
    with pytest.raises(DataError, match="not what was asked"):
        build_pdf(pages, read_series(flair), "Report")
