"""A case's answer as a Structured Report: what it says, what it refers to, what is refused."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import dicom_series as dicom
import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_files import write_report, write_segmentation
from dicom_series import validated
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from gliofed.calibration.cns5 import (
    GLIOBLASTOMA,
    NOT_DETERMINABLE,
    OUTCOMES,
    UNSEEN,
    IntegratedType,
)
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.dicom import report_codes, sr
from gliofed.dicom.case_report import CaseReport
from gliofed.dicom.seg import MaskAuthor, SegmentTracking
from gliofed.dicom.source_series import read_series
from gliofed.dicom.sr import NO_FAULT, build_report
from gliofed.errors import DataError
from gliofed.markers import BY_ID, MARKERS
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.version import __version__

NONE = float("nan")
MASK = np.zeros((20, 24, 10), bool)
MASK[5:9, 6:10, 3:6] = True
OPEN = IntegratedType(
    NOT_DETERMINABLE, dict(zip(OUTCOMES, (0.25, 0.125, 0.5, 0.125), strict=True)), OUTCOMES[:2],
    "left open: several",
)  # fmt: skip
REPORT = CaseReport(
    model="3f2a9c",
    volume_ml=12.345678901234567,
    markers=(
        MarkerAnswer(
            "idh", (0.1234567890123456789, 0.8765432109876543211), None, None, ("mutant",), True
        ),
        MarkerAnswer("codel_1p19q", (0.5, 0.5), None, None, ("intact", "codeleted"), False),
        MarkerAnswer("mgmt", (0.3, 0.7), None, None, (), False),
        MarkerAnswer("grade", (0.0, 1e-9, 1 - 1e-9), None, None, None, None),
    ),
    integrated=OPEN,
    quality=("T2 is missing.", "T1 lies 3 mm off; look at it."),
)
UNKNOWN_SCHEME = (
    "Warning - Unrecognized defined term <99GLIOFED> for value 1 of attribute "
    "<Coding Scheme Designator>"
)
ACCESSION = re.compile(
    r"Warning - Different information entities for attribute - Element=<AccessionNumber>"
    r" IE <(Study> versus <Series|Series> versus <Study)> for file .*"
)
"""dicom3tools files the accession number of a request, which images may have, under the series."""


@pytest.fixture
def flair(tmp_path):
    return dicom.write_series(tmp_path / "flair", dicom.Made())


@pytest.fixture
def outline(flair, tmp_path):
    out = tmp_path / "seg.dcm"
    affine = dicom.Made().affine()
    write_segmentation(
        MASK, affine, flair, out, MaskAuthor("3f2a9c"), tracking=SegmentTracking("case 7")
    )
    return out


def told(path: Path) -> list[tuple[str, str, object]]:
    """Every item of a report with a value, by pydicom alone: (kind, code, value), in order."""
    found = []

    def walk(items) -> None:
        for item in items:
            code = item.ConceptNameCodeSequence[0].CodeValue
            if item.ValueType == "TEXT":
                found.append(("TEXT", code, item.TextValue))
            elif item.ValueType == "CODE":
                value = item.ConceptCodeSequence[0]
                pair = (value.CodeValue, value.CodingSchemeDesignator)
                found.append(("CODE", code, pair))
            elif item.ValueType == "NUM":
                value = item.MeasuredValueSequence[0]
                unit = value.MeasurementUnitsCodeSequence[0].CodeValue
                assert float(value.NumericValue) == pytest.approx(value.FloatingPointValue, 1e-13)
                found.append(("NUM", code, (value.FloatingPointValue, unit)))
            elif item.ValueType == "UIDREF":
                found.append(("UIDREF", code, str(item.UID)))
            elif item.ValueType == "IMAGE":
                uid = item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
                found.append(("IMAGE", code, str(uid)))
            walk(item.get("ContentSequence", ()))

    walk(pydicom.dcmread(path).ContentSequence)
    return found


def consistent(*files) -> list[str]:
    """What dcentvfy finds between files, but for what it says of any report."""
    return [s for s in validated("dcentvfy", *files) if not ACCESSION.fullmatch(s)]


def values(path: Path, kind: str, code: str) -> list[object]:
    return [value for k, c, value in told(path) if (k, c) == (kind, code)]


def test_every_figure_reads_back_exactly(flair, outline, tmp_path) -> None:
    out = tmp_path / "sr.dcm"
    write_report(REPORT, flair, out, segmentation=outline)
    assert values(out, "NUM", "118565006") == [(REPORT.volume_ml, "ml")]
    for answer in REPORT.markers:
        names = report_codes.PROBABILITY[answer.marker]
        for name, chance in zip(names.values(), answer.probabilities, strict=True):
            assert values(out, "NUM", name.value) == [(chance, "1")], name.meaning
    for name, chance in OPEN.probabilities.items():
        assert values(out, "NUM", report_codes.OUTCOME_PROBABILITY[name].value) == [(chance, "1")]
    assert values(out, "CODE", "SET") == [
        ("C18093", "NCIt"), ("CODEL-INTACT", "99GLIOFED"), ("C79099", "NCIt"),
        ("SET-EMPTY", "99GLIOFED"), ("SET-ABSENT", "99GLIOFED"),
    ]  # fmt: skip
    assert values(out, "CODE", "KEPT") == [
        ("373066001", "SCT"), ("373067005", "SCT"), ("373067005", "SCT")
    ]  # fmt: skip
    assert values(out, "CODE", "CNS5") == [("CNS5-OPEN", "99GLIOFED")]
    assert values(out, "TEXT", "CNS5-REASON") == ["left open: several"]
    assert values(out, "TEXT", "CNS5-UNSEEN") == [UNSEEN]
    assert values(out, "TEXT", "111052") == list(REPORT.quality)
    assert told(out)[0] == ("TEXT", "121106", RESEARCH_USE_ONLY)


def test_highdicom_reads_it_as_a_measurement_report(flair, outline, tmp_path) -> None:
    out = tmp_path / "sr.dcm"
    write_report(REPORT, flair, out, segmentation=outline)
    content = hd.sr.srread(out).content
    assert isinstance(content, hd.sr.MeasurementReport)
    segment = pydicom.dcmread(outline).SegmentSequence[0]
    (group,) = content.get_volumetric_roi_measurement_groups(tracking_uid=segment.TrackingUID)
    assert group.tracking_identifier == "case 7"
    seg = pydicom.dcmread(outline)
    assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
    source = pydicom.dcmread(flair / "000.dcm")
    assert group.referenced_segment.source_series_for_segmentation.value == source.SeriesInstanceUID
    (volume,) = group.get_measurements(codes.SCT.Volume)
    assert (volume.value, volume.unit.value) == (REPORT.volume_ml, "ml")
    assert group.finding_type == codes.SCT.Neoplasm
    groups = content.get_image_measurement_groups(tracking_uid=segment.TrackingUID)
    assert [g.finding_type.value for g in groups] == ["IDH", "CODEL", "MGMT", "GRADE", "CNS5"]
    idh = groups[0].get_measurements(report_codes.PROBABILITY["idh"]["mutant"])
    assert [m.value for m in idh] == [REPORT.markers[0].probabilities[1]]
    (observer,) = content.get_observer_contexts()
    assert observer.observer_type == codes.DCM.Device
    assert observer.observer_identifying_attributes.name == "3f2a9c"
    assert observer.observer_identifying_attributes.model_name == f"gliofed {__version__}"


def test_the_model_and_its_version_are_named(flair, tmp_path) -> None:
    devices = []
    for number, report in enumerate((REPORT, REPORT, replace(REPORT, version="9.9"))):
        write_report(report, flair, tmp_path / f"{number}.dcm")
        devices += values(tmp_path / f"{number}.dcm", "UIDREF", "121012")
    assert devices[0] == devices[1] != devices[2]
    assert values(tmp_path / "2.dcm", "TEXT", "111003") == ["9.9"]
    assert values(tmp_path / "2.dcm", "TEXT", "111002") == ["model=3f2a9c"]


def test_without_a_segmentation_it_refers_to_the_images(flair, tmp_path) -> None:
    out = tmp_path / "sr.dcm"
    write_report(replace(REPORT, volume_ml=0.0), flair, out)
    series = [pydicom.dcmread(p) for p in sorted(flair.iterdir())]
    assert values(out, "IMAGE", "121112") == [i.SOPInstanceUID for i in series]
    (study,) = pydicom.dcmread(out).CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == series[0].StudyInstanceUID
    (own,) = study.ReferencedSeriesSequence
    assert own.SeriesInstanceUID == series[0].SeriesInstanceUID
    assert len(own.ReferencedSOPSequence) == len(series)
    (uid,) = set(values(out, "UIDREF", "112040"))
    assert uid.startswith("1.2.826.0.1.3680043.10.511.3.")


def test_the_evidence_names_series_and_segmentation(flair, outline, tmp_path) -> None:
    write_report(REPORT, flair, tmp_path / "sr.dcm", segmentation=outline)
    (study,) = pydicom.dcmread(tmp_path / "sr.dcm").CurrentRequestedProcedureEvidenceSequence
    named = {s.SeriesInstanceUID: len(s.ReferencedSOPSequence)
             for s in study.ReferencedSeriesSequence}  # fmt: skip
    seg, source = pydicom.dcmread(outline), pydicom.dcmread(flair / "000.dcm")
    assert named == {source.SeriesInstanceUID: 10, seg.SeriesInstanceUID: 1}


def test_a_type_that_is_determined_has_no_reason(flair, tmp_path) -> None:
    kind = replace(OPEN, answer=GLIOBLASTOMA, reason="")
    write_report(replace(REPORT, integrated=kind, quality=()), flair, tmp_path / "sr.dcm")
    assert values(tmp_path / "sr.dcm", "CODE", "CNS5") == [("C39750", "NCIt")]
    assert values(tmp_path / "sr.dcm", "TEXT", "CNS5-REASON") == []
    assert values(tmp_path / "sr.dcm", "TEXT", "CNS5-UNSEEN") == [UNSEEN]
    assert values(tmp_path / "sr.dcm", "TEXT", "111052") == [NO_FAULT]


@pytest.mark.process
def test_a_figure_that_does_not_exist_is_said_and_no_number(flair, tmp_path) -> None:
    out = tmp_path / "sr.dcm"
    kind = IntegratedType(NOT_DETERMINABLE, None, (), "a probability is not finite")
    markers = (MarkerAnswer("idh", (NONE, NONE), None, None, (), False),)
    write_report(replace(REPORT, markers=markers, integrated=kind), flair, out)
    assert values(out, "CODE", "IDH-P-MUTANT") == [("114000", "DCM")]
    assert [v for k, _, v in told(out) if k == "NUM"] == [(REPORT.volume_ml, "ml")]
    assert len(hd.sr.srread(out).content.get_image_measurement_groups()) == 3
    assert {s for s in validated("dciodvfy", out) if s != UNKNOWN_SCHEME} == {"ComprehensiveSR"}


@pytest.mark.process
def test_validators_find_no_fault(flair, outline, tmp_path) -> None:
    for name, seg in (("a.dcm", outline), ("b.dcm", None)):
        write_report(REPORT, flair, tmp_path / name, segmentation=seg)
        said = validated("dciodvfy", tmp_path / name)
        assert [s for s in said if s != UNKNOWN_SCHEME] == ["ComprehensiveSR"]
        assert consistent(tmp_path / name, outline, *flair.iterdir()) == []


def test_it_is_filed_with_its_source(flair, tmp_path) -> None:
    write_report(REPORT, flair, tmp_path / "sr.dcm")
    made, source = pydicom.dcmread(tmp_path / "sr.dcm"), pydicom.dcmread(flair / "000.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
                 "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):  # fmt: skip
        assert made[name].value == source[name].value, name
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert (made.Modality, made.SeriesNumber) == ("SR", 2005)
    assert (made.CompletionFlag, made.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert made.PreliminaryFlag == "PRELIMINARY"
    assert RESEARCH_USE_ONLY in made.SeriesDescription
    (scheme,) = made.CodingSchemeIdentificationSequence
    assert (scheme.CodingSchemeDesignator, scheme.CodingSchemeVersion) == ("99GLIOFED", "1")


@pytest.mark.parametrize(("charset", "name", "text", "written"), [
    ("ISO_IR 100", "Müller^Jörg", "Größe\nzweite Zeile", "ISO_IR 100"),
    ("ISO_IR 100", "Müller^Jörg", "腫瘍", "ISO_IR 192"),
    ("ISO_IR 192", "王^小東", "腫瘍\r\nß", "ISO_IR 192"),
    ("ISO_IR 144", "Иванов^Иван", "опухоль", "ISO_IR 144"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "腫瘍", "ISO_IR 192"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎", "plain", ["", "ISO 2022 IR 87"]),
    (None, "Plain^Name", "Größe", "ISO_IR 192"),
    (None, "Plain^Name", "plain", None),
    ("ISO_IR 100", "Müller^Jörg", "long words " * 2000 + "end", "ISO_IR 100"),
])  # fmt: skip
def test_text_in_any_script_survives(charset, name, text, written, tmp_path) -> None:
    def named(ds, index):
        ds.SpecificCharacterSet, ds.PatientName = charset, name
        if charset is None:
            del ds.SpecificCharacterSet

    folder = dicom.write_series(tmp_path / "s", dicom.Made(slices=3), change=named)
    report = replace(REPORT, quality=(text,), integrated=replace(OPEN, reason=text))
    write_report(report, folder, tmp_path / "sr.dcm")
    assert values(tmp_path / "sr.dcm", "TEXT", "111052") == [text]
    assert values(tmp_path / "sr.dcm", "TEXT", "CNS5-REASON") == [text]
    made = pydicom.dcmread(tmp_path / "sr.dcm")
    assert made.PatientName == name
    assert made.get("SpecificCharacterSet") == written


def marker(**changes) -> CaseReport:
    return replace(REPORT, markers=(replace(REPORT.markers[0], **changes), *REPORT.markers[1:]))


REFUSED = {
    "volume below 0": (replace(REPORT, volume_ml=-0.1), r"volume is -0.1 ml"),
    "no volume": (replace(REPORT, volume_ml=NONE), "volume is nan"),
    "above 1": (marker(probabilities=(0.5, 1.5)), "probability of 1.5"),
    "below 0": (marker(probabilities=(-0.5, 1.5)), "probability of -0.5"),
    "endless": (marker(probabilities=(0.5, math.inf)), "probability of inf"),
    "sum": (marker(probabilities=(0.5, 0.502)), r"sum to 1\.002"),
    "too few": (marker(probabilities=(1.0,)), "1 probabilities, expected 2: wildtype, mutant"),
    "a class of another": (marker(prediction_set=("codeleted",)), "'codeleted' is no class of idh"),
    "unknown marker": (marker(marker="tert"), "'tert' is no marker"),
    "twice": (replace(REPORT, markers=REPORT.markers * 2), "is repeated"),
    "unknown type": (
        replace(REPORT, integrated=replace(OPEN, answer="glioma")),
        "'glioma' is no integrated type",
    ),
    "no reason": (
        replace(REPORT, integrated=replace(OPEN, reason=" ")),
        "the reason for .* is empty",
    ),
    "an outcome too few": (
        replace(REPORT, integrated=replace(OPEN, probabilities={GLIOBLASTOMA: 1.0})),
        "lack an outcome",
    ),
    "empty finding": (replace(REPORT, quality=("",)), "quality finding of the report: is empty"),
    "control": (replace(REPORT, quality=("a\x00b",)), r"contains '\\x00'"),
    "half a letter": (replace(REPORT, quality=("a\ud800b",)), r"contains '\\ud800'"),
    "no model": (replace(REPORT, model=""), "model id: is empty"),
}


@pytest.mark.parametrize(("report", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_reported_is_one_clear_error(report, says, flair, tmp_path) -> None:
    with pytest.raises(DataError, match=says):
        write_report(report, flair, tmp_path / "out/sr.dcm")
    assert not (tmp_path / "out").exists()


def test_probabilities_may_miss_1_by_a_rounding(flair, tmp_path) -> None:
    write_report(marker(probabilities=(0.5, 0.5009)), flair, tmp_path / "sr.dcm")
    write_report(marker(probabilities=(-1e-7, 1 + 1e-7)), flair, tmp_path / "b.dcm")
    assert values(tmp_path / "b.dcm", "NUM", "IDH-P-MUTANT") == [(1.0, "1")]


def test_a_segmentation_of_something_else_is_refused(flair, outline, tmp_path) -> None:
    other = dicom.write_series(tmp_path / "other", dicom.Made(number=6))
    with pytest.raises(DataError, match="refers to another series"):
        write_report(REPORT, other, tmp_path / "sr.dcm", segmentation=outline)
    seg = pydicom.dcmread(outline)
    seg.StudyInstanceUID = "1.2.3"
    seg.save_as(tmp_path / "study.dcm")
    with pytest.raises(DataError, match="refers to another series"):
        write_report(REPORT, flair, tmp_path / "sr.dcm", segmentation=tmp_path / "study.dcm")
    seg = pydicom.dcmread(outline)
    seg.SegmentSequence.append(seg.SegmentSequence[0])
    seg.save_as(tmp_path / "two.dcm")
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "cut.dcm").write_bytes(outline.read_bytes()[:700])
    for name, says in (("two.dcm", "2 segments, expected one"), ("text.dcm", "cannot be read"),
                       ("cut.dcm", r"cut\.dcm"), ("absent.dcm", "no such file"),
                       ("flair/000.dcm", "not a DICOM Segmentation")):  # fmt: skip
        with pytest.raises(DataError, match=says):
            write_report(REPORT, flair, tmp_path / "sr.dcm", segmentation=tmp_path / name)
    assert not (tmp_path / "sr.dcm").exists()


def test_a_segmentation_without_tracking_is_referred_to(flair, outline, tmp_path) -> None:
    seg = pydicom.dcmread(outline)
    del seg.SegmentSequence[0].TrackingUID
    del seg.SegmentSequence[0].TrackingID
    seg.save_as(tmp_path / "plain.dcm")
    write_report(REPORT, flair, tmp_path / "sr.dcm", segmentation=tmp_path / "plain.dcm")
    assert values(tmp_path / "sr.dcm", "IMAGE", "121191") == [seg.SOPInstanceUID]
    assert set(values(tmp_path / "sr.dcm", "TEXT", "112039")) == {
        seg.SegmentSequence[0].SegmentLabel
    }


@pytest.mark.process
def test_sources_without_patient_data_still_work(tmp_path) -> None:
    def bare(ds, index):
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                     "StudyTime", "StudyID", "AccessionNumber", "SeriesNumber",
                     "ReferringPhysicianName"):  # fmt: skip
            delattr(ds, name)
        ds.PatientSex = "U"
        del ds.PatientAge
        with disable_value_validation():
            ds.PatientAge = "42"

    folder = dicom.write_series(tmp_path / "s", dicom.Made(), change=bare)
    write_report(REPORT, folder, tmp_path / "sr.dcm")
    said = validated("dciodvfy", tmp_path / "sr.dcm")
    left = [s for s in said if s != UNKNOWN_SCHEME and "needed to build DICOMDIR" not in s]
    assert left == ["ComprehensiveSR"]
    assert "PatientAge" not in pydicom.dcmread(tmp_path / "sr.dcm")


@pytest.mark.process
def test_a_multi_frame_source(tmp_path) -> None:
    single = dicom.write_series(tmp_path / "single", dicom.Made(slices=4))
    images = [pydicom.dcmread(p) for p in sorted(single.iterdir())]
    for image in images:
        image.ContentQualification, image.VolumetricProperties = "RESEARCH", "VOLUME"
    (tmp_path / "multi").mkdir()
    one = tmp_path / "multi/one"
    hd.legacy.LegacyConvertedEnhancedMRImage(images, "1.2.3", 7, "1.2.4", 1).save_as(one)
    write_report(REPORT, tmp_path / "multi", tmp_path / "sr.dcm")
    assert values(tmp_path / "sr.dcm", "IMAGE", "121112") == ["1.2.4"]
    said = validated("dciodvfy", tmp_path / "sr.dcm")
    assert [s for s in said if s != UNKNOWN_SCHEME] == ["ComprehensiveSR"]


@pytest.mark.parametrize("harm", ["text", "number", "evidence", "patient"])
def test_a_faulty_report_is_never_written(harm, flair, monkeypatch) -> None:
    """What the writing library might do wrong is seen when its file is read again."""

    def faulty(document):
        data = sr_encode(document)
        again = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
        if harm == "text":
            again.ContentSequence[0].TextValue = "For clinical use."
        elif harm == "number":
            groups = next(i for i in again.ContentSequence if i.ValueType == "CONTAINER")
            number = next(
                i for i in groups.ContentSequence[0].ContentSequence if i.ValueType == "NUM"
            )
            number.MeasuredValueSequence[0].FloatingPointValue += 1
        elif harm == "evidence":
            study = again.CurrentRequestedProcedureEvidenceSequence[0]
            study.ReferencedSeriesSequence[0].ReferencedSOPSequence.pop()
        else:
            again.PatientID = "P2"
        return sr_encode(again)

    sr_encode = sr.encode
    monkeypatch.setattr(sr, "encode", faulty)
    with pytest.raises(DataError, match="after writing"):
        build_report(REPORT, read_series(flair))


def every_code() -> list[Code]:
    own = [
        getattr(report_codes, n)
        for n in dir(report_codes)
        if isinstance(getattr(report_codes, n), Code)
    ]
    for m in MARKERS:
        own.append(report_codes.MARKER[m.id])
        own += [
            t[m.id][c] for t in (report_codes.PROBABILITY, report_codes.CLASS) for c in m.classes
        ]
    own += [
        t[o] for t in (report_codes.OUTCOME, report_codes.OUTCOME_PROBABILITY) for o in OUTCOMES
    ]
    return own


def test_every_marker_class_and_outcome_has_its_code() -> None:
    assert list(report_codes.MARKER) == list(BY_ID)
    for table in (report_codes.CLASS, report_codes.PROBABILITY):
        assert {m: tuple(c) for m, c in table.items()} == {m.id: m.classes for m in MARKERS}
    assert set(report_codes.OUTCOME) == set(report_codes.OUTCOME_PROBABILITY) == set(OUTCOMES)
    seen = every_code()
    assert len({(c.value, c.scheme_designator) for c in seen}) == len(seen)
    assert all(len(c.value) <= 16 and len(c.meaning) <= 64 for c in seen)


def test_published_codes_that_the_dictionary_has_are_its_own() -> None:
    for name in (
        "CAUTION",
        "PROCEDURE",
        "VOLUME",
        "VOXELS",
        "ONE",
        "NOT_A_NUMBER",
        "YES",
        "NO",
        "QUALITY",
    ):
        code = getattr(report_codes, name)
        found = getattr(codes, code.scheme_designator)
        assert any(getattr(found, k).value == code.value for k in found.dir()), name


def test_the_table_of_codes_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[1] / "docs/reference/dicom-report.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \| (.+?) \|", text, re.M)
    assert sorted(rows) == sorted((c.value, c.scheme_designator, c.meaning) for c in every_code())
