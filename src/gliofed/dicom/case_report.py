"""The contents of a case's DICOM report, as values, and their validation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from gliofed.calibration.cns5 import NOT_DETERMINABLE, OUTCOMES, IntegratedType
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.dicom.derived import validated_text
from gliofed.errors import DataError
from gliofed.markers import BY_ID
from gliofed.version import __version__

_SLACK: Final = 1e-6
_SUM_SLACK: Final = 1e-3


@dataclass(frozen=True)
class CaseReport:
    """The contents of a report. model: its id. volume_ml: of the segmentation on this series.

    quality: faults of the preparation, each a sentence; empty where there is none. version: of the
    gliofed that made the prediction.
    """

    model: str
    volume_ml: float
    markers: tuple[MarkerAnswer, ...]
    integrated: IntegratedType
    quality: tuple[str, ...]
    version: str = __version__


def validated_report(report: CaseReport) -> CaseReport:
    """The same report with its texts normalised for DICOM.

    Raises DataError: a volume below 0 or not finite, a probability outside 0 to 1, probabilities
    that do not sum to 1, an unknown or repeated marker, unknown classes or outcomes, an open type
    without its reason, and as `validated_text` does.
    """
    if not (math.isfinite(report.volume_ml) and report.volume_ml >= 0):
        raise DataError(f"the report: its volume is {report.volume_ml} ml; expected 0 or more")
    names = [m.marker for m in report.markers]
    if len(set(names)) != len(names):
        raise DataError(f"the report: a marker is repeated in {', '.join(names)}; keep one of each")
    for marker in report.markers:
        _check_marker(marker)
    kind = report.integrated
    if kind.answer not in OUTCOMES:
        raise DataError(
            f"the report: {kind.answer!r} is no integrated type; see `gliofed.calibration.cns5`"
        )
    probabilities = kind.probabilities
    if probabilities is not None:
        if set(probabilities) != set(OUTCOMES):
            raise DataError("the report: probabilities of the integrated type lack an outcome")
        _check_probabilities(tuple(probabilities.values()), "the integrated type")
    open_type = kind.answer == NOT_DETERMINABLE
    return replace(
        report,
        model=validated_text(report.model, "the report's model id"),
        version=validated_text(report.version, "the report's version"),
        quality=tuple(validated_text(t, "a quality finding of the report") for t in report.quality),
        integrated=replace(
            kind,
            reason=validated_text(kind.reason, "the reason for an open type") if open_type else "",
            unseen=validated_text(kind.unseen, "what the model cannot determine"),
        ),
    )


def _check_marker(answer: MarkerAnswer) -> None:
    if answer.marker not in BY_ID:
        raise DataError(f"the report: {answer.marker!r} is no marker; known: {', '.join(BY_ID)}")
    classes = BY_ID[answer.marker].classes
    if len(answer.probabilities) != len(classes):
        raise DataError(
            f"the report: {answer.marker} has {len(answer.probabilities)} probabilities, expected "
            f"{len(classes)}: {', '.join(classes)}"
        )
    _check_probabilities(answer.probabilities, answer.marker)
    unknown = set(answer.prediction_set or ()) - set(classes)
    if unknown:
        raise DataError(
            f"the report: {min(unknown)!r} is no class of {answer.marker}; it has "
            f"{', '.join(classes)}"
        )


def _check_probabilities(probabilities: tuple[float, ...], name: str) -> None:
    for p in probabilities:
        if not (math.isnan(p) or -_SLACK <= p <= 1 + _SLACK):
            raise DataError(f"the report: {name} has a probability of {p}; expected 0 to 1")
    total = sum(probabilities)
    if not any(map(math.isnan, probabilities)) and abs(total - 1) > _SUM_SLACK:
        raise DataError(f"the report: probabilities of {name} sum to {total:g}, expected 1")
