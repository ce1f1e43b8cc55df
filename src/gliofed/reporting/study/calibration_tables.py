"""Tables of a calibration evaluated on external cases: coverage, selective errors, types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.calibration.cns5 import OUTCOMES
from gliofed.calibration.evaluation import (
    ALL_GROUPS,
    CALIBRATED_SUFFIX,
    INTEGRATED_TYPE,
    CalibrationEvaluation,
    ScalingRow,
    SetCoverageRow,
    ThresholdRow,
)
from gliofed.calibration.model_agreement import AgreementRow
from gliofed.calibration.selective import SelectiveRiskRow
from gliofed.evaluation.results import ScoreRow
from gliofed.markers import BY_ID, MARKERS
from gliofed.reporting.html.formatting import (
    NOT_AVAILABLE,
    difference,
    estimate,
    metric_digits,
    metric_title,
    number,
    site_title,
    task_title,
    with_interval,
)
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.tables import external_rows

MEASURES: Final = (
    "brier",
    "calibration_error",
    "calibration_slope",
    "calibration_intercept",
    "calibration_in_the_large",
)
TYPE_TITLE: Final = "Integrated type (WHO CNS5)"
DIGITS: Final = 2


@dataclass(frozen=True)
class CalibrationChange:
    """One measure of calibration, before and after calibration of the probabilities."""

    marker: str
    measure: str
    n: str
    before: str
    after: str
    difference: str
    note: str


@dataclass(frozen=True)
class CoverageLine:
    """How often prediction sets contained the true class. against_target: whether the interval is
    below, around or above the target coverage."""

    site: str
    marker: str
    label: str
    n: str
    share: str
    against_target: str
    size: str
    single: str
    empty: str


@dataclass(frozen=True)
class RiskLine:
    """Errors of a marker at each coverage, then the area under the curve."""

    marker: str
    n: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ThresholdLine:
    """Coverage and errors of the predictions above a confidence threshold."""

    marker: str
    target: str
    n: str
    coverage: str
    errors: str
    note: str


@dataclass(frozen=True)
class IntegratedTypeLine:
    """A reference type: its cases, and the share predicted as each outcome."""

    reference: str
    n: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ScalingLine:
    """One marker's calibration of one seed and fold."""

    repeat: str
    marker: str
    classes: str
    slope: str
    intercepts: str
    limit: str
    note: str


@dataclass(frozen=True)
class CalibrationTables:
    """All tables of an evaluated calibration.

    target_coverage: such as "0.90". coverage_lines: all classes together; class_coverage_lines:
    each class. coverages: column headings of `risks`. outcomes: column headings of `types`.
    """

    target_coverage: str
    changes: tuple[CalibrationChange, ...]
    coverage_lines: tuple[CoverageLine, ...]
    class_coverage_lines: tuple[CoverageLine, ...]
    coverages: tuple[str, ...]
    risks: tuple[RiskLine, ...]
    thresholds: tuple[ThresholdLine, ...]
    outcomes: tuple[str, ...]
    types: tuple[IntegratedTypeLine, ...]
    scalings: tuple[ScalingLine, ...]


@dataclass(frozen=True)
class AgreementLine:
    """One figure on how the agreement of segmentations relates to their Dice."""

    what: str
    n: str
    value: str
    method: str
    note: str


def agreement_lines(rows: Sequence[AgreementRow]) -> tuple[AgreementLine, ...]:
    """In the order of the rows."""
    return tuple(
        AgreementLine(
            "rank correlation with the agreement"
            if r.coverage is None
            else f"mean of the {100 * r.coverage:.0f} % that agree most",
            str(r.n),
            with_interval(r.value, r.low, r.high, DIGITS),
            r.method,
            r.note,
        )
        for r in rows
    )


def make_calibration_tables(scored: ScoredPredictions) -> CalibrationTables | None:
    """None without an evaluation or results; the evaluation's note gives the reason."""
    evaluation = scored.calibration
    if evaluation is None or not evaluation.results:
        return None
    all_classes = [r for r in evaluation.sets if r.label == ALL_GROUPS]
    coverages = tuple(dict.fromkeys(r.coverage for r in evaluation.risks))
    return CalibrationTables(
        target_coverage=number(1 - evaluation.config.alpha, DIGITS),
        changes=_changes(scored.rows, evaluation.model),
        coverage_lines=tuple(map(_coverage_line, all_classes)),
        class_coverage_lines=tuple(
            _coverage_line(r) for r in evaluation.sets if r.label != ALL_GROUPS
        ),
        coverages=tuple(_coverage(c) for c in coverages),
        risks=_risks(evaluation.risks, coverages),
        thresholds=tuple(map(_threshold_line, evaluation.thresholds)),
        outcomes=OUTCOMES,
        types=_types(evaluation),
        scalings=scaling_lines(evaluation.scalings),
    )


def _changes(rows: Sequence[ScoreRow], model: str) -> tuple[CalibrationChange, ...]:
    external = external_rows(rows)
    out = []
    for marker in MARKERS:
        for measure in MEASURES:
            before = external.get((model, marker.id, measure))
            after = external.get((model + CALIBRATED_SUFFIX, marker.id, measure))
            if before is not None and after is not None:
                out.append(_change(before, after))
    return tuple(out)


def _change(before: ScoreRow, after: ScoreRow) -> CalibrationChange:
    digits = metric_digits(before.metric)
    notes = dict.fromkeys(n for row in (before, after) for n in row.note.split("; ") if n)
    ns = dict.fromkeys((before.n, after.n))
    return CalibrationChange(
        task_title(before.task),
        metric_title(before.metric),
        " / ".join(map(str, ns)),
        estimate(before, digits),
        estimate(after, digits),
        difference(after, digits) or NOT_AVAILABLE,
        "; ".join(notes),
    )


def _coverage_line(row: SetCoverageRow) -> CoverageLine:
    against_target = NOT_AVAILABLE
    if row.low is not None and row.high is not None:
        against_target = "compatible with the target"
        if row.high < row.target_coverage:
            against_target = "below the target"
        elif row.low > row.target_coverage:
            against_target = "above the target"
    return CoverageLine(
        site_title(row.site),
        task_title(row.marker),
        row.label,
        str(row.n),
        with_interval(row.value, row.low, row.high, DIGITS),
        against_target,
        *(number(v, DIGITS) for v in (row.size, row.single, row.empty)),
    )


def _coverage(covered: float | None) -> str:
    return (
        "area under the curve" if covered is None else f"the {100 * covered:.0f} % most confident"
    )


def _risks(
    rows: Sequence[SelectiveRiskRow], coverages: Sequence[float | None]
) -> tuple[RiskLine, ...]:
    out = []
    for marker in MARKERS:
        by_coverage = {r.coverage: r for r in rows if r.marker == marker.id}
        if by_coverage:
            cells = tuple(_risk(by_coverage[c]) for c in coverages)
            out.append(RiskLine(marker.title, str(max(r.n for r in by_coverage.values())), cells))
    return tuple(out)


def _risk(row: SelectiveRiskRow) -> str:
    text = with_interval(row.value, row.low, row.high, DIGITS)
    return f"{text}: {row.note}" if row.note else text


def _threshold_line(row: ThresholdRow) -> ThresholdLine:
    target = "none" if row.target_risk is None else f"at most {number(row.target_risk, DIGITS)}"
    title = TYPE_TITLE if row.marker == INTEGRATED_TYPE else BY_ID[row.marker].title
    errors = with_interval(row.error_rate, row.low, row.high, DIGITS)
    return ThresholdLine(title, target, str(row.n), number(row.coverage, DIGITS), errors, row.note)


def _types(evaluation: CalibrationEvaluation) -> tuple[IntegratedTypeLine, ...]:
    out = []
    for reference in OUTCOMES:
        by_prediction = {
            r.predicted: r for r in evaluation.integrated_types if r.reference == reference
        }
        if by_prediction:
            cells = tuple(number(by_prediction[o].share, DIGITS) for o in OUTCOMES)
            out.append(
                IntegratedTypeLine(reference, str(next(iter(by_prediction.values())).n), cells)
            )
    return tuple(out)


def scaling_lines(rows: Sequence[ScalingRow]) -> tuple[ScalingLine, ...]:
    """In the order of the rows."""
    return tuple(map(_scaling_line, rows))


def _scaling_line(row: ScalingRow) -> ScalingLine:
    classes = BY_ID[row.marker].classes
    limit = "none: all are withheld" if row.limit is None else number(row.limit, 3)
    return ScalingLine(
        ", ".join(filter(None, (f"seed {row.seed}", row.fold))),
        task_title(row.marker),
        ", ".join(f"{c} {n}" for c, n in zip(classes, row.n, strict=True)),
        number(row.slope, DIGITS),
        ", ".join(number(v, DIGITS) for v in row.intercepts),
        limit,
        row.note,
    )
