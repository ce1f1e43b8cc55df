"""What a report of a case holds, as plain values, and what of it cannot be reported."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from gliofed.calibration.cns5 import NOT_DETERMINABLE, OUTCOMES, IntegratedType
from gliofed.dicom.derived import validated_text
from gliofed.errors import DataError
from gliofed.markers import BY_ID
from gliofed.version import __version__

_SLACK: Final = 1e-6
_SUM_SLACK: Final = 1e-3


@dataclass(frozen=True)
class ReportedMarker:
    """One marker. marker: its id; probabilities: in the order of its classes, NaN where there is
    none. left: class names that the prediction set does not rule out; kept: whether the answer is
    confident enough for the risk wished; both None without a calibration.
    """

    marker: str
    probabilities: tuple[float, ...]
    left: tuple[str, ...] | None
    kept: bool | None


@dataclass(frozen=True)
class CaseReport:
    """What a report holds. model: its id. volume_ml: of the outline on this series.

    quality: faults of the preparation, each a sentence; empty where there is none. version: of the
    gliofed that made the answer.
    """

    model: str
    volume_ml: float
    markers: tuple[ReportedMarker, ...]
    integrated: IntegratedType
    quality: tuple[str, ...]
    version: str = __version__


def validated_report(report: CaseReport) -> CaseReport:
    """The same, its texts as DICOM keeps them.

    Raises DataError: a volume below 0 or not finite, a probability outside 0 to 1, probabilities
    that do not sum to 1, an unknown or repeated marker, unknown classes or outcomes, an open type
    without its reason, and as `validated_text` says.
    """
    if not (math.isfinite(report.volume_ml) and report.volume_ml >= 0):
        raise DataError(f"the report: its volume is {report.volume_ml} ml; expected 0 or more")
    names = [m.marker for m in report.markers]
    if len(set(names)) != len(names):
        raise DataError(f"the report: a marker stands twice in {', '.join(names)}; keep one answer")
    for marker in report.markers:
        _check_marker(marker)
    kind = report.integrated
    if kind.answer not in OUTCOMES:
        raise DataError(f"the report: {kind.answer!r} is no integrated type; see calibrate.cns5")
    chances = kind.probabilities
    if chances is not None:
        if set(chances) != set(OUTCOMES):
            raise DataError("the report: probabilities of the integrated type lack an outcome")
        _check_chances(tuple(chances.values()), "the integrated type")
    open_type = kind.answer == NOT_DETERMINABLE
    return replace(
        report,
        model=validated_text(report.model, "the report's model id"),
        version=validated_text(report.version, "the report's version"),
        quality=tuple(validated_text(t, "a quality finding of the report") for t in report.quality),
        integrated=replace(
            kind,
            reason=validated_text(kind.reason, "why the type is not determinable")
            if open_type
            else "",
            unseen=validated_text(kind.unseen, "what the model does not see"),
        ),
    )


def _check_marker(answer: ReportedMarker) -> None:
    if answer.marker not in BY_ID:
        raise DataError(f"the report: {answer.marker!r} is no marker; known: {', '.join(BY_ID)}")
    classes = BY_ID[answer.marker].classes
    if len(answer.probabilities) != len(classes):
        raise DataError(
            f"the report: {answer.marker} has {len(answer.probabilities)} probabilities, expected "
            f"{len(classes)}: {', '.join(classes)}"
        )
    _check_chances(answer.probabilities, answer.marker)
    strange = set(answer.left or ()) - set(classes)
    if strange:
        raise DataError(
            f"the report: {min(strange)!r} is no class of {answer.marker}; it has "
            f"{', '.join(classes)}"
        )


def _check_chances(found: tuple[float, ...], what: str) -> None:
    for chance in found:
        if not (math.isnan(chance) or -_SLACK <= chance <= 1 + _SLACK):
            raise DataError(f"the report: {what} has a probability of {chance}; expected 0 to 1")
    if not any(map(math.isnan, found)) and abs(sum(found) - 1) > _SUM_SLACK:
        raise DataError(f"the report: probabilities of {what} sum to {sum(found):g}, expected 1")
