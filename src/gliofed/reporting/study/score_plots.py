"""Every model's external figures with their intervals, one panel for each measure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from gliofed.evaluation.metrics.definitions import AUC, AUC_MEAN
from gliofed.evaluation.results import ScoreRow
from gliofed.reporting.html.formatting import (
    NOT_AVAILABLE,
    estimate,
    is_single_site,
    missing_reason,
    model_title,
)
from gliofed.reporting.plots.style import FEDERATED as LOOK
from gliofed.reporting.plots.style import Plot, label, line_style_of, small
from gliofed.reporting.study.tables import (
    HEADLINE_DIGITS,
    MEASURES,
    HeadlineMeasure,
    external_rows,
    in_order,
)
from gliofed.study import FEDERATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANCE = 0.5


def model_plots(rows: Sequence[ScoreRow], reference: str = FEDERATED) -> tuple[Plot, ...]:
    """The reference, pooled, every other and each single-site model; empty without external rows.

    Calibrated models have no line: their segmentations and ranks are those of the model itself.
    """
    external = external_rows(rows)
    models = in_order((model for model, _, _ in external), reference)
    if not models:
        return ()
    return tuple(
        _plot(measure, [(m, external.get((m, measure.task, measure.metric))) for m in models])
        for measure in MEASURES
    )


def _plot(measure: HeadlineMeasure, rows: Sequence[tuple[str, ScoreRow | None]]) -> Plot:
    return Plot(
        f"models-{measure.task}",
        _in_words(measure, rows),
        4.1,
        0.75 + 0.42 * len(rows),
        partial(_draw, measure, rows),
    )


def _draw(
    measure: HeadlineMeasure, rows: Sequence[tuple[str, ScoreRow | None]], figure: Figure
) -> None:
    axes = figure.subplots()
    for place, (model, row) in enumerate(rows):
        _model_line(axes, place, model, row, bold=place == 0)
    counts = sorted({row.n for _, row in rows if row is not None})
    n = " to ".join(str(c) for c in (counts[:1] + counts[1:][-1:]))
    axes.set_title(f"{measure.title} (n = {n})" if n else measure.title)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(rows) - 0.5, -0.75)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    if measure.metric in (AUC, AUC_MEAN):
        axes.axvline(CHANCE, color="#8a8a8a", linewidth=1.2, zorder=1)


def _model_line(axes: Axes, place: int, model: str, row: ScoreRow | None, bold: bool) -> None:
    """The model's name and figures above its point and interval."""
    stroke = LOOK if bold else line_style_of(model)
    weight = "bold" if bold else "normal"
    above = place - 0.28
    axes.text(0, above, label(model_title(model), 32), va="center", fontweight=weight)
    text = NOT_AVAILABLE if row is None else estimate(row, HEADLINE_DIGITS)
    axes.text(1, above, text, va="center", ha="right", fontweight=weight)
    at = place + 0.1
    if row is None or row.value is None:
        why = "not part of this run" if row is None else missing_reason(row)
        axes.text(0, at, label(why, 60), va="center", fontsize=small(), fontstyle="italic")
        return
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [at, at], color=stroke.colour, linewidth=2.2)
        axes.plot([row.low, row.high], [at, at], "|", color=stroke.colour, markersize=7)
    face = "white" if is_single_site(model) else stroke.colour
    axes.plot(
        [row.value],
        [at],
        stroke.marker,
        color=stroke.colour,
        markersize=6.5,
        markerfacecolor=face,
        markeredgewidth=1.4,
        zorder=3,
    )


def _in_words(measure: HeadlineMeasure, rows: Sequence[tuple[str, ScoreRow | None]]) -> str:
    parts = [
        f"{model_title(m)} {NOT_AVAILABLE if r is None else estimate(r, HEADLINE_DIGITS)}"
        for m, r in rows
    ]
    return f"{measure.title}, external test, with 95 % intervals: {'; '.join(parts)}."
