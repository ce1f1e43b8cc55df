"""A case's prediction as a DICOM Structured Report (Comprehensive SR, TID 1500) of its source
series.

It is Comprehensive SR, since no spatial coordinates are needed and archives without 3D SR accept
it. The codes are those of `report_codes`. The file is read again and compared before it is written.
"""

from __future__ import annotations

import io
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import highdicom as hd
import pydicom
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegment,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import format_number_as_ds

from gliofed.calibration.cns5 import IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.dicom import report_codes
from gliofed.dicom.case_report import CaseReport, validated_report
from gliofed.dicom.derived import (
    derived_series,
    encode,
    finalize,
    identity_differences,
    source_header,
)
from gliofed.dicom.seg import SegmentTracking
from gliofed.dicom.source_series import PARSE_ERRORS, Header, SourceSeries, quiet
from gliofed.errors import DataError
from gliofed.notice import RESEARCH_USE_ONLY

NO_FAULT: Final = "No fault of the scans' preparation was found."
_CONTAINS: Final = "CONTAINS"

Group = MeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations


@dataclass(frozen=True)
class _ReferencedSegment:
    """The one segment of a segmentation file, and the tracking of its tumour."""

    header: Header
    number: int
    tracking: SegmentTracking


def build_report(
    report: CaseReport, series: SourceSeries, segmentation: Path | None = None
) -> bytes:
    """The file's bytes, read again and compared with the report.

    Raises DataError: a value out of range (a negative volume, a probability above 1),
    unknown markers, classes or outcomes, empty text or text that DICOM cannot hold, a segmentation
    that is unreadable, not of this series or without its one segment, attributes of the source
    that no report can hold, or a difference when read again.
    """
    report = validated_report(report)
    segment = None if segmentation is None else _segment(segmentation, series)
    with quiet():
        try:
            document = _compose(report, series, segment)
            data = encode(document)
        except PARSE_ERRORS as error:
            raise DataError(
                f"{series.folder}: its headers cannot be copied into a report ({error}); "
                "correct the source series"
            ) from error
        _verify(data, document, series)
    return data


def _segment(path: Path, series: SourceSeries) -> _ReferencedSegment:
    """Raises DataError as `build_report` does."""
    with quiet():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            first = series.images[0]
            if header.get("Modality") != "SEG":
                raise DataError(f"{path}: is not a DICOM Segmentation; expected modality SEG")
            series_uids = {
                str(s.SeriesInstanceUID) for s in header.get("ReferencedSeriesSequence", ())
            }
            study = header.get("StudyInstanceUID")
            if study != first.StudyInstanceUID or str(first.SeriesInstanceUID) not in series_uids:
                raise DataError(
                    f"{path}: refers to another series than {series.folder} holds; give the "
                    "segmentation that was written for this series"
                )
            if len(header.SegmentSequence) != 1:
                raise DataError(
                    f"{path}: has {len(header.SegmentSequence)} segments, expected one; give the "
                    "segmentation that gliofed wrote"
                )
            segment = header.SegmentSequence[0]
            uid = segment.get("TrackingUID")
            name = str(segment.get("TrackingID") or segment.SegmentLabel)
            tracking = SegmentTracking(name, str(uid)) if uid else SegmentTracking(name)
            return _ReferencedSegment(header, int(segment.SegmentNumber), tracking)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        except (InvalidDicomError, *PARSE_ERRORS) as error:
            raise DataError(f"{path}: cannot be read as DICOM ({error}); export it again") from None


def _compose(
    report: CaseReport, series: SourceSeries, segment: _ReferencedSegment | None
) -> hd.sr.ComprehensiveSR:
    source = source_header(series)
    evidence = [source, *series.images[1:], *([segment.header] if segment else [])]
    document = hd.sr.ComprehensiveSR(
        evidence=evidence,
        content=_content(report, series, segment)[0],
        is_complete=True,
        coding_schemes=[report_codes.scheme()],
        **derived_series(source, 2000, "Report of a case"),
    )
    finalize(document, source, _texts(document.ContentSequence))
    return document


def _content(
    report: CaseReport, series: SourceSeries, segment: _ReferencedSegment | None
) -> MeasurementReport:
    tracking = segment.tracking if segment else SegmentTracking()
    tracked = TrackingIdentifier(tracking.uid, tracking.name)
    groups = [_segmentation_group(report, series, segment, tracked)]
    groups += [_marker(answer, tracked) for answer in report.markers]
    groups.append(_integrated(report.integrated, tracked))
    report_items = MeasurementReport(
        observation_context=hd.sr.ObservationContext(_observer(report)),
        procedure_reported=report_codes.PROCEDURE,
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    report_items[0].ContentSequence.insert(0, _text(report_codes.CAUTION, RESEARCH_USE_ONLY))
    evaluations = ContainerContentItem(report_codes.EVALUATIONS, relationship_type=_CONTAINS)
    evaluations.ContentSequence = ContentSequence(
        [_text(report_codes.QUALITY, t) for t in report.quality or (NO_FAULT,)]
    )
    report_items[0].ContentSequence.append(evaluations)
    return report_items


def _observer(report: CaseReport) -> hd.sr.ObserverContext:
    """The model as a device; the same model of the same version is always the same device."""
    name = f"https://gliofed/{report.version}/{report.model}"
    return hd.sr.ObserverContext(
        codes.cid270.Device,
        hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID.from_uuid(str(uuid.uuid5(uuid.NAMESPACE_URL, name))),
            name=report.model,
            manufacturer_name="gliofed",
            model_name=f"gliofed {report.version}",
        ),
    )


def _segmentation_group(
    report: CaseReport,
    series: SourceSeries,
    segment: _ReferencedSegment | None,
    tracked: TrackingIdentifier,
) -> Group:
    """The volume, with the segmentation where there is one, else with the images."""
    volume = _number(report_codes.VOLUME, report.volume_ml, report_codes.ML, report_codes.VOXELS)
    algorithm = AlgorithmIdentification(
        name="gliofed",
        version=report.version,
        parameters=[f"model={report.model}"],
        family=codes.cid7162.ArtificialIntelligence,
    )
    first = series.images[0]
    if segment is None:
        return MeasurementsAndQualitativeEvaluations(
            tracked,
            finding_type=codes.SCT.Neoplasm,
            algorithm_id=algorithm,
            finding_sites=[hd.sr.FindingSite(codes.SCT.Brain)],
            measurements=[volume],
            finding_category=codes.SCT.MorphologicallyAbnormalStructure,
            source_images=[
                hd.sr.SourceImageForMeasurementGroup(i.SOPClassUID, i.SOPInstanceUID)
                for i in series.images
            ],
        )
    refers = ReferencedSegment(
        segment.header.SOPClassUID,
        segment.header.SOPInstanceUID,
        segment.number,
        source_series=hd.sr.SourceSeriesForSegmentation(first.SeriesInstanceUID),
    )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracked,
        referenced_segment=refers,
        finding_type=codes.SCT.Neoplasm,
        algorithm_id=algorithm,
        finding_sites=[hd.sr.FindingSite(codes.SCT.Brain)],
        measurements=[volume],
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
    )


def _marker(answer: MarkerAnswer, tracked: TrackingIdentifier) -> Group:
    class_codes = report_codes.CLASS[answer.marker]
    names = report_codes.PROBABILITY[answer.marker]
    numbers, pairs = _probability_items(names.values(), answer.probabilities)
    set_codes = [report_codes.NO_CALIBRATION]
    if answer.prediction_set is not None:
        set_codes = [class_codes[c] for c in answer.prediction_set] or [report_codes.NO_CLASS]
    if not answer.trained:
        set_codes = [report_codes.NOT_TRAINED]
    pairs += [(report_codes.SET, code) for code in set_codes]
    if answer.confident is not None:
        pairs.append((report_codes.KEPT, report_codes.YES if answer.confident else report_codes.NO))
    return MeasurementsAndQualitativeEvaluations(
        tracked,
        finding_type=report_codes.MARKER[answer.marker],
        measurements=numbers,
        qualitative_evaluations=[QualitativeEvaluation(*pair) for pair in pairs],
    )


def _integrated(kind: IntegratedType, tracked: TrackingIdentifier) -> Group:
    probabilities = kind.probabilities or {}
    names = [report_codes.OUTCOME_PROBABILITY[o] for o in probabilities]
    numbers, pairs = _probability_items(names, probabilities.values())
    pairs.append((report_codes.TYPE, report_codes.OUTCOME[kind.answer]))
    group = MeasurementsAndQualitativeEvaluations(
        tracked,
        finding_type=report_codes.TYPE,
        measurements=numbers,
        qualitative_evaluations=[QualitativeEvaluation(*pair) for pair in pairs],
    )
    texts = [(report_codes.REASON, kind.reason), (report_codes.UNSEEN, kind.unseen)]
    group[0].ContentSequence.extend(_text(name, text) for name, text in texts if text)
    return group


def _probability_items(
    names: Iterable[Code], probabilities: Iterable[float]
) -> tuple[list[Measurement], list[tuple[Code, Code]]]:
    """Probabilities as numbers from 0 to 1, and as pairs of codes those that are not finite.

    An item without its number would be valid DICOM, but highdicom cannot read a file with one.
    """
    numbers, pairs = [], []
    for name, p in zip(names, probabilities, strict=True):
        if math.isnan(p):
            pairs.append((name, report_codes.NOT_A_NUMBER))
        else:
            clipped = min(max(float(p), 0.0), 1.0)
            numbers.append(_number(name, clipped, report_codes.ONE))
    return numbers, pairs


def _number(name: Code, value: float, unit: Code, method: Code | None = None) -> Measurement:
    """The exact value as floating point, and its sixteen characters as DICOM's decimal string."""
    measurement = Measurement(name, float(value), unit, method=method)
    measurement[0].MeasuredValueSequence[0].NumericValue = format_number_as_ds(float(value))
    return measurement


def _text(name: Code, text: str) -> TextContentItem:
    return TextContentItem(CodedConcept.from_code(name), text, _CONTAINS)


def _texts(items: Iterable[Header]) -> list[str]:
    """Every free text of a content tree."""
    out = []
    for item in items:
        if "TextValue" in item:
            out.append(str(item.TextValue))
        out += _texts(item.get("ContentSequence", ()))
    return out


def _plain(element: pydicom.DataElement) -> object:
    """Plain values, since items of highdicom do not compare equal to plain ones."""
    return element.to_json_dict(None, 0)


def _verify(data: bytes, document: Header, series: SourceSeries) -> None:
    """Read the bytes again by pydicom alone: the same content, references and patient."""
    again = pydicom.dcmread(io.BytesIO(data))
    faults = identity_differences(again, source_header(series))
    for name in ("ContentSequence", "CurrentRequestedProcedureEvidenceSequence"):
        if _plain(again[name]) != _plain(document[name]):
            faults.append(f"{name} differs")
    if faults:
        raise DataError(
            f"the report of {series.folder}: differs from the contents after writing "
            f"({'; '.join(faults[:3])}); "
            "nothing was written, please report it"
        )
