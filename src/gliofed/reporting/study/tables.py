"""The tables of the results page, as text, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gliofed.evaluation.by_case.score_table import ALL_SITES, MEDIAN_MODEL
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import (
    NOT_AVAILABLE,
    count,
    difference,
    estimate,
    interval,
    is_calibrated,
    is_hidden,
    is_personal_model,
    is_single_site,
    metric_digits,
    metric_title,
    missing_reason,
    model_title,
    number,
    signed,
    site_title,
    task_title,
    value_text,
)
from gliofed.reporting.study.content import StudyContent, TrainingHistory
from gliofed.study import FEDERATED

HEADLINE_MODELS = (FEDERATED, "pooled", MEDIAN_MODEL)
HEADLINE_DIGITS = 2
GAP_DIGITS = 3
FEW_CASES = 10

Key = tuple[str, str, str]


@dataclass(frozen=True)
class HeadlineMeasure:
    """One line of the first table and one panel of the figure below it."""

    title: str
    task: str
    metric: str


MEASURES: tuple[HeadlineMeasure, ...] = (
    HeadlineMeasure("Dice of the segmentation, mean", "mask", "dice"),
    *(HeadlineMeasure(f"{m.title}: AUC", m.id, "auc") for m in MARKERS),
    HeadlineMeasure("All markers: mean AUC", "markers", "auc_mean"),
)


@dataclass(frozen=True)
class HeadlineCell:
    """One model's figure. why: the note; verdict: from the interval of the difference."""

    model: str
    main: str
    why: str
    gap: str
    verdict: str


@dataclass(frozen=True)
class HeadlineLine:
    """One measure for every headline model."""

    title: str
    cells: tuple[HeadlineCell, ...]


@dataclass(frozen=True)
class ScoreLine:
    """One `ScoreRow` as text; the filters compare role, site, model and task."""

    role: str
    site: str
    model: str
    task: str
    metric: str
    n: str
    value: str
    interval: str
    difference: str
    seeds: str
    note: str
    method: str


@dataclass(frozen=True)
class TableFilter:
    """One select above the full table: the data attribute it compares and its choices."""

    name: str
    title: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training one model, summed over seeds and folds."""

    model: str
    repeats: str
    rounds: str
    minutes: str
    sent: str
    refused: str


@dataclass(frozen=True)
class RefusedUpdate:
    """One update that was not merged; rounds count from 1."""

    model: str
    repeat: str
    round: str
    site: str
    why: str


def in_order(models: Iterable[str], reference: str) -> tuple[str, ...]:
    """Each model once: the reference, pooled, the others, then single sites by name. Without
    calibrated models and the median of single sites."""
    names = [m for m in dict.fromkeys(models) if m != MEDIAN_MODEL and not is_calibrated(m)]
    first = [m for m in dict.fromkeys((reference, FEDERATED, "pooled")) if m in names]
    others = [m for m in names if m not in first and not is_single_site(m)]
    return (*first, *others, *sorted(m for m in names if m not in first and is_single_site(m)))


def external_rows(rows: Sequence[ScoreRow]) -> Mapping[Key, ScoreRow]:
    """(model, task, metric) to the row of all external cases together."""
    by_key: dict[Key, ScoreRow] = {}
    for row in rows:
        if row.role == "external" and row.site == ALL_SITES:
            by_key.setdefault((row.model, row.task, row.metric), row)
    return by_key


def headline(
    rows: Sequence[ScoreRow],
    models: Sequence[str] = HEADLINE_MODELS,
    reference: str = FEDERATED,
) -> tuple[HeadlineLine, ...]:
    """External test, all hospitals; a missing model or figure has a note. Empty without an external
    row. reference: the model that `difference` is against.
    """
    external = external_rows(rows)
    if not external:
        return ()
    return tuple(
        HeadlineLine(
            measure.title,
            tuple(
                headline_cell(model, external.get((model, measure.task, measure.metric)), reference)
                for model in models
            ),
        )
        for measure in MEASURES
    )


def headline_cell(model: str, row: ScoreRow | None, reference: str = FEDERATED) -> HeadlineCell:
    """A model's figure in one line of the first table; row: None if it was not tested."""
    title = model_title(model)
    if row is None:
        return HeadlineCell(title, NOT_AVAILABLE, "not part of this run", "", "")
    if is_hidden(row):
        return HeadlineCell(title, estimate(row, HEADLINE_DIGITS), missing_reason(row), "", "")
    main = f"{estimate(row, HEADLINE_DIGITS)}, n = {row.n}"
    few = f"fewer than {FEW_CASES} cases: too few for any claim" if row.n < FEW_CASES else ""
    why = "; ".join(filter(None, (missing_reason(row), few)))
    return HeadlineCell(title, main, why, difference(row, GAP_DIGITS), _verdict(row, reference))


def _verdict(row: ScoreRow, reference: str) -> str:
    low, high = row.difference_low, row.difference_high
    if row.difference is None or low is None or high is None:
        return ""
    if low <= 0 <= high:
        return "no clear difference"
    return f"{'higher' if low > 0 else 'lower'} than {model_title(reference)}"


def external_summary(results: Sequence[CaseResult], rows: Sequence[ScoreRow]) -> str:
    """The cases of the first table, as one sentence; empty without external cases."""
    outside = [r for r in results if r.role == "external"]
    if not outside:
        return ""
    cases = len({(r.site, r.case) for r in outside})
    sites = sorted({r.site for r in outside})
    own = {r.model for r in rows if is_single_site(r.model)}
    alone = sum(not is_personal_model(m) for m in own)
    seeds = len({r.seed for r in outside})
    folds = len({r.fold for r in outside})
    text = f"{count(cases, 'case')} of {count(len(sites), 'hospital')} ({', '.join(sites)})"
    text += ", each tested with models that were not trained on its hospital"
    if folds > 1:
        text += f", over {folds} splits"
    if seeds > 1:
        text += f"; each figure is the mean of {seeds} repeats with other random seeds"
    if alone:
        text += f"; {count(alone, 'single-site model')}"
    return text + "."


def full_table(rows: Sequence[ScoreRow]) -> tuple[ScoreLine, ...]:
    """Every row, in the order in which it was scored."""
    return tuple(_table_row(row) for row in rows)


def _table_row(row: ScoreRow) -> ScoreLine:
    digits = metric_digits(row.metric)
    value = value_text(row, digits)
    return ScoreLine(
        role=row.role,
        site=site_title(row.site),
        model=model_title(row.model),
        task=task_title(row.task),
        metric=metric_title(row.metric),
        n=str(row.n),
        value=value,
        interval=interval(row.low, row.high, digits) if value != NOT_AVAILABLE else "",
        difference=difference(row, digits),
        seeds=str(row.seeds),
        note=missing_reason(row),
        method=row.method,
    )


def filters(table: Sequence[ScoreLine]) -> tuple[TableFilter, ...]:
    """Selects for the full table, each with the values that occur."""
    return (
        TableFilter("role", "Test", tuple(dict.fromkeys(r.role for r in table))),
        TableFilter("site", "Hospital", tuple(dict.fromkeys(r.site for r in table))),
        TableFilter("model", "Model", tuple(dict.fromkeys(r.model for r in table))),
        TableFilter("task", "Task", tuple(dict.fromkeys(r.task for r in table))),
    )


def costs(curves: Sequence[TrainingHistory]) -> tuple[TrainingCost, ...]:
    """One line a model, in order of appearance; models without a round are omitted."""
    groups: dict[str, list[TrainingHistory]] = {}
    for curve in curves:
        if curve.points:
            groups.setdefault(curve.model, []).append(curve)
    return tuple(_cost(model, histories) for model, histories in groups.items())


def _cost(model: str, histories: Sequence[TrainingHistory]) -> TrainingCost:
    points = [p for curve in histories for p in curve.points]
    lengths = sorted({curve.points[-1].round + 1 for curve in histories})
    rounds = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    sent = sum(p.bytes_up for p in points)
    return TrainingCost(
        model=model_title(model),
        repeats=str(len(histories)),
        rounds=rounds,
        minutes=number(sum(p.seconds for p in points) / 60, 1),
        sent=_sent(model, sent),
        refused=str(sum(p.rounds - p.merged.get(s, 0) for p in points for s in p.refused)),
    )


def _sent(model: str, sent: int) -> str:
    if is_single_site(model):
        return "nothing left the hospital"
    return "images pooled beforehand" if model == "pooled" else number(sent / 1e6, 1)


def refusals(curves: Sequence[TrainingHistory]) -> tuple[RefusedUpdate, ...]:
    """Every update that was not merged, with the reason."""
    return tuple(
        RefusedUpdate(
            model_title(curve.model),
            f"seed {curve.seed}, {curve.fold}",
            str(point.round + 1),
            *refused,
        )
        for curve in curves
        for point in curve.points
        for refused in point.refused.items()
    )


def cohort_of(content: StudyContent) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and body; both empty without counts."""
    return (content.cohort[0], content.cohort[1:]) if content.cohort else ((), ())


def first_to_last(values: Sequence[tuple[int, float]], unit: str) -> str:
    """A curve as text, for screen readers. unit: of the positions, "epoch" or "round"."""
    if not values:
        return "no value"
    (start, first), (end, last) = values[0], values[-1]
    if start == end:
        return f"{number(first, 2)} in {unit} {start}"
    change = signed(last - first, 2)
    return (
        f"from {number(first, 2)} in {unit} {start} to {number(last, 2)} in {unit} {end} ({change})"
    )
