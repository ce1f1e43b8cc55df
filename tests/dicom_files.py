"""DICOM objects as files, for the tests of what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gliofed.data.reorient import Array
from gliofed.dicom.case_report import CaseReport
from gliofed.dicom.seg import MaskAuthor, SegmentTracking, build_segmentation
from gliofed.dicom.source_series import read_series
from gliofed.dicom.sr import build_report


def write_segmentation(
    mask: np.ndarray,
    affine: Array,
    folder: Path,
    out: Path,
    author: MaskAuthor,
    choose: str = "",
    tracking: SegmentTracking | None = None,
) -> bool:
    """Whether there was anything to write."""
    data = build_segmentation(mask, affine, read_series(folder, choose), author, tracking)
    if data is not None:
        out.write_bytes(data)
    return data is not None


def write_report(
    report: CaseReport, folder: Path, out: Path, segmentation: Path | None = None
) -> None:
    data = build_report(report, read_series(folder), segmentation)
    out.parent.mkdir(exist_ok=True)
    out.write_bytes(data)
