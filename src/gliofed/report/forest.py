"""Every model's external figures with their intervals, one panel a measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gliofed.report.drawing import Picture, drawing, label, new_figure, picture, stroke_of
from gliofed.report.tables import HEADLINE_DIGITS, MEASURES, Measure, external_rows
from gliofed.report.wording import NOT_AVAILABLE, estimate, is_alone, model_title, reason
from gliofed.score.results import ScoreRow
from gliofed.score.table import MEDIAN_MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 0.5


def forest_pictures(rows: Sequence[ScoreRow]) -> tuple[Picture, ...]:
    """Federated, pooled, what else they are compared with, and each single-site model; empty
    without external rows."""
    found = external_rows(rows)
    names = list(dict.fromkeys(model for model, _, _ in found))
    models: list[str] = [m for m in ("federated", "pooled") if m in names]
    models += [m for m in names if m not in (*models, MEDIAN_MODEL) and not is_alone(m)]
    models += sorted(m for m in names if is_alone(m))
    if not models:
        return ()
    out = []
    for measure in MEASURES:
        own = [(m, found.get((m, measure.task, measure.metric))) for m in models]
        out.append(_panel(measure, own))
    return tuple(out)


def _panel(measure: Measure, own: Sequence[tuple[str, ScoreRow | None]]) -> Picture:
    with drawing():
        figure = new_figure(4.1, 0.75 + 0.42 * len(own))
        axes = figure.subplots()
        for place, (model, row) in enumerate(own):
            _model_line(axes, place, model, row)
        counts = sorted({row.n for _, row in own if row is not None})
        n = " to ".join(str(c) for c in (counts[:1] + counts[1:][-1:]))
        axes.set_title(f"{measure.title} (n = {n})" if n else measure.title)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(len(own) - 0.5, -0.75)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        if measure.metric == "auc":
            axes.axvline(CHANCE, color="#8a8a8a", linewidth=1.2, zorder=1)
        return picture(figure, _in_words(measure, own))


def _model_line(axes: Axes, place: int, model: str, row: ScoreRow | None) -> None:
    """The model's name and figures above its point and interval."""
    stroke = stroke_of(model)
    weight = "bold" if model == "federated" else "normal"
    above = place - 0.28
    axes.text(0, above, label(model_title(model), 32), va="center", fontweight=weight)
    text = NOT_AVAILABLE if row is None else estimate(row, HEADLINE_DIGITS)
    axes.text(1, above, text, va="center", ha="right", fontweight=weight)
    at = place + 0.1
    if row is None or row.value is None:
        why = "not part of this run" if row is None else reason(row)
        axes.text(0, at, label(why, 60), va="center", fontsize=8, fontstyle="italic")
        return
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [at, at], color=stroke.colour, linewidth=2.2)
        axes.plot([row.low, row.high], [at, at], "|", color=stroke.colour, markersize=7)
    face = "white" if is_alone(model) else stroke.colour
    axes.plot([row.value], [at], stroke.marker, color=stroke.colour, markersize=6.5,
              markerfacecolor=face, markeredgewidth=1.4, zorder=3)  # fmt: skip


def _in_words(measure: Measure, own: Sequence[tuple[str, ScoreRow | None]]) -> str:
    parts = [
        f"{model_title(m)} {NOT_AVAILABLE if r is None else estimate(r, HEADLINE_DIGITS)}"
        for m, r in own
    ]
    return f"{measure.title}, external test, with 95 % intervals: {'; '.join(parts)}."
