"""Builds a DICOM Structured Report of a case's prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gliofed.calibration.fusion import known_inputs
from gliofed.inference.answer import CaseAnswer
from gliofed.inference.mask_export import ExportedMask, SeriesLocation
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.reporting.case.answer_text import inputs
from gliofed.types import Sequence


def report_bytes(
    answer: CaseAnswer,
    quality: tuple[str, ...],
    files: Iterable[ExportedMask],
    series: Mapping[Sequence, SeriesLocation],
) -> bytes:
    """A Structured Report of one series: the FLAIR's, else the next of `MASKED_ON` that is given.

    quality: faults of the preparation, each a sentence. files: as `export_masks` gave them for
    these `series`, of which there is at least one. The volume is that of the segmentation on the
    series' own voxels. Raises DataError as `gliofed.dicom.sr.build_report` does.
    """
    from gliofed.dicom.case_report import CaseReport
    from gliofed.dicom.source_series import read_series
    from gliofed.dicom.sr import build_report

    sequence = next(s for s in MASKED_ON if s in series)
    mask = next(f for f in files if f.sequence is sequence and f.kind == "DICOM-SEG")
    location = series[sequence]
    report = CaseReport(
        model=answer.model.id[:12],
        volume_ml=mask.volume_ml,
        markers=answer.markers,
        integrated=answer.integrated,
        quality=(*_cautions(answer), *quality),
    )
    source = read_series(location.folder, location.choose, location.slices)
    return build_report(report, source, mask.path)


def _cautions(answer: CaseAnswer) -> tuple[str, ...]:
    """What the page states of the model and the sequences, in front of the checks' findings."""
    cautions = []
    if answer.model.synthetic:
        cautions.append(
            "The model was trained on synthetic phantoms only, not on patients; the prediction "
            "says nothing about glioma."
        )
    if answer.missing:
        cautions.append(f"Missing sequences: {', '.join(answer.missing)}.")
    if answer.fused:
        cautions.append(inputs(answer.fused, known_inputs(answer.person)))
    return tuple(cautions)
