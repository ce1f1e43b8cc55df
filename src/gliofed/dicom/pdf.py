"""A PDF as a DICOM instance of a source series' study (Encapsulated PDF)."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Final

import highdicom as hd
import pydicom
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from gliofed.dicom.derived import (
    derived_series,
    encode,
    finalize,
    identity_differences,
    source_header,
    validated_text,
)
from gliofed.dicom.source_series import PARSE_ERRORS, Header, SourceSeries, quiet, read_series
from gliofed.errors import DataError
from gliofed.runtime.files import write_bytes

LONGEST_TITLE: Final = 1024
"""Characters of short text (PS3.5, 6.2)."""
_TAIL: Final = re.compile(rb"startxref\s+(\d+)\s+%%EOF\s*\Z")
_TABLE: Final = re.compile(rb"xref\b|\d+\s+\d+\s+obj\b")


def write_pdf(pdf: bytes, series_folder: Path, out: Path, title: str, choose: str = "") -> None:
    """Write a PDF's bytes as an Encapsulated PDF in the study of a source series.

    title: what an archive shows. choose: number or UID of the series where the folder holds
    several. Raises DataError as `read_series` and `build_pdf` say, and where `out` exists; nothing
    is then written.
    """
    if out.exists():
        raise DataError(f"{out}: is there already; remove it or choose another name")
    write_bytes(out, build_pdf(pdf, read_series(series_folder, choose), title))


def build_pdf(pdf: bytes, series: SourceSeries, title: str) -> bytes:
    """The file's bytes, read again and compared with what was asked.

    Raises DataError: bytes that are no PDF or not the whole of one, a title that is empty, too
    long or cannot be said in DICOM, attributes of the source that no document can carry, or a
    difference when read again.
    """
    _check(pdf)
    title = validated_text(title, "the document's title")
    if len(title) > LONGEST_TITLE or not title.isprintable():
        raise DataError(f"the document's title: expected one line of at most {LONGEST_TITLE} "
                        "characters")  # fmt: skip
    with quiet():
        try:
            data = encode(_compose(pdf, series, title))
        except PARSE_ERRORS as error:
            raise DataError(
                f"{series.folder}: its headers cannot be carried into a document ({error}); "
                "correct the source series"
            ) from error
        _verify(data, pdf, title, series)
    return data


def _check(pdf: bytes) -> None:
    """The first bytes, and the end with its pointer to the table of what is in the file."""
    if not pdf.startswith(b"%PDF-"):
        raise DataError(f"the document: begins with {pdf[:8]!r}, expected a PDF's '%PDF-'")
    tail = _TAIL.search(pdf[-1024:])
    if tail is None or not _TABLE.match(pdf[int(tail[1]) : int(tail[1]) + 64].lstrip()):
        raise DataError(f"the document: {len(pdf)} bytes are not the whole of a PDF (its end or "
                        "its table is missing); make it again")  # fmt: skip


def _compose(pdf: bytes, series: SourceSeries, title: str) -> hd.base.SOPClass:
    source = source_header(series)
    document = hd.base.SOPClass(
        study_instance_uid=source.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        patient_id=source.PatientID,
        patient_name=source.PatientName,
        patient_birth_date=source.PatientBirthDate,
        patient_sex=source.PatientSex,
        accession_number=source.AccessionNumber,
        study_id=source.StudyID,
        study_date=source.StudyDate,
        study_time=source.StudyTime,
        referring_physician_name=source.get("ReferringPhysicianName"),
        **derived_series(source, 3000, "Report of a case"),
    )
    document.copy_patient_and_study_information(source)
    document.ConversionType = "WSD"  # a workstation's
    document.AcquisitionDateTime = None
    document.BurnedInAnnotation = "YES"  # the pages may name the patient
    document.RecognizableVisualFeatures = "NO"
    document.ConceptNameCodeSequence = []
    document.DocumentTitle = title
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    document.EncapsulatedDocumentLength = len(pdf)
    document.EncapsulatedDocument = pdf + b"\0" * (len(pdf) % 2)
    finalize(document, source, [title])
    return document


def _verify(data: bytes, pdf: bytes, title: str, series: SourceSeries) -> None:
    again: Header = pydicom.dcmread(io.BytesIO(data))
    faults = identity_differences(again, source_header(series))
    if again.EncapsulatedDocument[: again.EncapsulatedDocumentLength] != pdf:
        faults.append("the pages differ")
    if again.DocumentTitle != title:
        faults.append("the title differs")
    if faults:
        raise DataError(
            f"the document of {series.folder}: is not what was asked ({'; '.join(faults)}); "
            "nothing was written, please report it"
        )
