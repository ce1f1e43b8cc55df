"""A case's answer as DICOM, beside the series that its outlines lie on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gliofed.inference.mask_export import ExportedMask, SeriesLocation
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.reporting.case.content import CaseContent
from gliofed.types import Sequence


def report_bytes(
    content: CaseContent, files: Iterable[ExportedMask], series: Mapping[Sequence, SeriesLocation]
) -> bytes:
    """A Structured Report of one series: the FLAIR's, else the next that its outline is read on.

    files: as `export_masks` gave them for these `series`, of which there is at least one. The
    volume is that of the outline on the series' own voxels. Raises DataError as
    `gliofed.dicom.sr.build_report` says.
    """
    from gliofed.dicom.case_report import CaseReport, ReportedMarker
    from gliofed.dicom.source_series import read_series
    from gliofed.dicom.sr import build_report

    sequence = next(s for s in MASKED_ON if s in series)
    drawn = next(f for f in files if f.sequence is sequence and f.kind == "DICOM-SEG")
    own = series[sequence]
    report = CaseReport(
        model=content.source.id[:12],
        volume_ml=drawn.volume_ml,
        markers=tuple(
            ReportedMarker(m.marker, m.probabilities, m.left, m.kept) for m in content.markers
        ),
        integrated=content.integrated,
        quality=content.quality,
    )
    return build_report(report, read_series(own.folder, own.choose), drawn.path)
