"""Training curves: the loss of each task and the soft Dice, by epochs or rounds counted from 1."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import is_single_site, model_title, task_title
from gliofed.reporting.plots.style import (
    ALONE,
    BLACK,
    FEDERATED,
    OTHERS,
    POOLED,
    LineStyle,
    Picture,
    label,
    new_figure,
    plot_style,
    vector_picture,
)
from gliofed.reporting.study.content import TrainingHistory
from gliofed.reporting.study.tables import first_to_last
from gliofed.types import RoundPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Value = Callable[[RoundPoint], float | None]
Line = list[tuple[int, float]]
MOST_DOTS = 25
_MERGED = "Sites merged"


def training_pictures(curves: Sequence[TrainingHistory]) -> tuple[Picture, ...]:
    """Soft Dice first, then one panel a task; a panel without values is omitted."""
    panels: list[tuple[str, Value]] = [("Soft Dice on training samples", lambda p: p.dice)]
    tasks = tasks_of(p for c in curves for p in c.points)
    panels += [(f"{task_title(t)}: training loss", _loss(t)) for t in tasks]
    panels.append(("Gradient norm before clipping", lambda p: p.gradient_norm))
    return _panels(panels, curves)


def run_pictures(points: Sequence[RoundPoint]) -> tuple[Picture, ...]:
    """The panels of one run, then time and traffic a round; empty before the first round."""
    curve = TrainingHistory("federated", 0, "", tuple(points))
    taken: list[tuple[str, Value]] = [
        (_MERGED, lambda p: sum(p.merged.values()) / p.rounds),
        ("Seconds a round", lambda p: p.seconds / p.rounds),
        ("Megabytes sent by sites a round", lambda p: p.bytes_up / p.rounds / 1e6),
    ]
    return (*training_pictures([curve]), *_panels(taken, [curve]))


def tasks_of(points: Iterable[RoundPoint]) -> list[str]:
    """The tasks that have a loss in any round: the mask, the markers, then any others."""
    given = {task for point in points for task in point.losses}
    order = ["mask", *(m.id for m in MARKERS)]
    return [t for t in order if t in given] + sorted(given - set(order))


def _panels(
    panels: Sequence[tuple[str, Value]], curves: Sequence[TrainingHistory]
) -> tuple[Picture, ...]:
    return tuple(
        _panel(title, value, curves)
        for title, value in panels
        if any(value(p) is not None for c in curves for p in c.points)
    )


def _loss(task: str) -> Value:
    return lambda point: point.losses.get(task)


def _line(curve: TrainingHistory, value: Value) -> Line:
    values: dict[int, list[float]] = {}
    for point in curve.points:
        if (v := value(point)) is not None:
            values.setdefault(curve.position(point), []).append(v)
    return [(position, statistics.fmean(v)) for position, v in values.items()]


def mean_line(lines: Sequence[Line]) -> Line:
    """The mean over the lines at every position that all of them reached."""
    tables = [dict(line) for line in lines if line]
    if not tables:
        return []
    shared = sorted(set(tables[0]).intersection(*tables[1:]))
    return [(r, statistics.fmean(t[r] for t in tables)) for r in shared]


def _panel(title: str, value: Value, curves: Sequence[TrainingHistory]) -> Picture:
    words = []
    unit = "epoch" if any(c.epochs for c in curves) else "round"
    with plot_style():
        figure = new_figure(3.9, 2.9)
        axes = figure.subplots()
        _single_sites(axes, [_line(c, value) for c in curves if is_single_site(c.model)])
        for model, stroke in _strokes(curves):
            histories = [c for c in curves if c.model == model]
            mean = _model_lines(axes, model, stroke, [_line(c, value) for c in histories])
            if mean:
                words.append(f"{model_title(model)} {first_to_last(mean, unit)}")
            _refused(axes, histories, dict(mean))
        _finish(axes, title, unit)
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.6)
        return vector_picture(
            figure, f"{title}, per {unit}: {'; '.join(reversed(words)) or 'see key'}."
        )


def _strokes(curves: Sequence[TrainingHistory]) -> list[tuple[str, LineStyle]]:
    """Of every model but single sites; federated last, and so above the others."""
    known = ("pooled", "federated")
    others = [m for m in dict.fromkeys(c.model for c in curves) if m not in known]
    several = [m for m in others if not is_single_site(m)]
    looks = [(m, OTHERS[i % len(OTHERS)]) for i, m in enumerate(several)]
    return [("pooled", POOLED), *looks, ("federated", FEDERATED)]


def _single_sites(axes: Axes, lines: Sequence[Line]) -> None:
    stroke = ALONE
    for number, line in enumerate(line for line in lines if line):
        axes.plot(
            *zip(*line, strict=True),
            stroke.line,
            color=stroke.colour,
            linewidth=1,
            alpha=0.75,
            label="" if number else "single sites",
        )


def _model_lines(axes: Axes, model: str, stroke: LineStyle, lines: Sequence[Line]) -> Line:
    """Draw a thin line for each seed and a thick one for their mean; return the mean."""
    drawn = [line for line in lines if line]
    mean = mean_line(drawn)
    if not mean:
        return []
    name = label(model_title(model))
    if len(drawn) > 1:
        name = f"{name}, mean of {len(drawn)}"
        for line in drawn:
            axes.plot(
                *zip(*line, strict=True), stroke.line, color=stroke.colour, linewidth=0.8, alpha=0.5
            )
    dots = stroke.marker if len(mean) <= MOST_DOTS else ""
    axes.plot(
        *zip(*mean, strict=True),
        linestyle=stroke.line,
        color=stroke.colour,
        marker=dots,
        markersize=3.5,
        label=name,
    )
    return mean


def _refused(axes: Axes, curves: Sequence[TrainingHistory], mean: dict[int, float]) -> None:
    refused = {c.position(p) for c in curves for p in c.points if p.refused}
    rounds = sorted(refused & mean.keys())
    if 0 < len(rounds) <= MOST_DOTS:  # more would cover the line; the table of refusals has them
        axes.plot(
            rounds,
            [mean[r] for r in rounds],
            "X",
            color=BLACK,
            markersize=8,
            markeredgecolor="white",
            zorder=5,
            label="update refused",
        )


def _finish(axes: Axes, title: str, unit: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    axes.grid(axis="y")
    if title == _MERGED:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if "Dice" in title:
        axes.set_ylim(0, 1)
    elif axes.get_ylim()[0] >= 0:
        axes.set_ylim(bottom=0)
