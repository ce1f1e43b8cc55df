"""ROC curves (discrimination) and calibration curves of the markers' probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.metrics.calibration import calibration_curve
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.markers import Marker
from gliofed.reporting.html.formatting import estimate, model_title, number, short_title
from gliofed.reporting.plots.style import (
    CLASSES,
    FEDERATED,
    GREY,
    OTHERS,
    POOLED,
    LineStyle,
    Plot,
    label,
)
from gliofed.reporting.study.tables import HEADLINE_DIGITS, external_rows
from gliofed.types import Unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CASES_A_BIN = 8
MOST_BINS = 8
MODELS = ("federated", "pooled")
SIDE = 3.7
LARGEST_POINT = 150.0
LONGEST_KEY = 48

Truth = NDArray[np.bool_]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class BinaryTask:
    """One class against the rest, by one model with one seed."""

    truth: Truth
    probability: Probabilities


@dataclass(frozen=True)
class CurveSeries:
    """One line of a figure: the same class for every seed. cases: of one seed."""

    name: str
    stroke: LineStyle
    repeats: tuple[BinaryTask, ...]
    cases: int
    positive: int

    @property
    def drawable(self) -> bool:
        """Whether there are cases on both sides."""
        return 0 < self.positive < self.cases


def marker_plots(
    marker: Marker,
    results: Sequence[CaseResult],
    rows: Sequence[ScoreRow],
    models: Sequence[str] = MODELS,
) -> tuple[Plot, ...]:
    """ROC and calibration on the external cases; empty without a known label.

    Two classes: the models' probabilities of the second class. More: each class against the rest,
    by the first model alone.
    """
    series = marker_series(marker, results, models)
    if not any(s.cases for s in series):
        return ()
    size = _size(marker, series)
    labels = _roc_labels(marker, series, rows)
    roc_words = [
        text if s.drawable else f"{text}, no curve: only one side has cases"
        for s, text in zip(series, labels, strict=True)
    ]
    return (
        Plot(
            f"roc-{marker.id}",
            f"{marker.title}, ROC, {size}. {'. '.join(roc_words)}.",
            SIDE,
            SIDE + 0.35,
            partial(_draw_roc, series, labels, f"ROC, {size}"),
        ),
        _calibration_plot(
            f"calibration-{marker.id}",
            f"{marker.title}, calibration, {size}",
            f"Calibration, {size}",
            series,
            rug=len(marker.classes) == 2,
        ),
    )


def reliability_plots(
    marker: Marker, before: Sequence[CaseResult], after: Sequence[CaseResult]
) -> tuple[Plot, ...]:
    """Each class's predicted and observed frequency on the external cases, of one model, before
    its calibration and after. Of two classes, the second; empty without a known label."""
    out = []
    for index in (1,) if len(marker.classes) == 2 else range(len(marker.classes)):
        name = marker.classes[index]
        series = tuple(
            _series(marker, [r for r in results_of if r.role == "external"], title, index, look)
            for results_of, title, look in ((before, "before", POOLED), (after, "after", FEDERATED))
        )
        if any(s.cases for s in series):
            last = series[-1]
            title = f"{short_title(marker.id, '')} {name}, n = {last.cases} ({last.positive})"
            file = f"reliability-{marker.id}-{name}"
            out.append(_calibration_plot(file, f"{marker.title}: {title}", title, series))
    return tuple(out)


def marker_series(
    marker: Marker, results: Sequence[CaseResult], models: Sequence[str] = MODELS
) -> tuple[CurveSeries, ...]:
    """The lines of the marker's figures; predictions that are not finite are excluded."""
    by_model = {m: [r for r in results if r.model == m and r.role == "external"] for m in models}
    if len(marker.classes) == 2:
        looks = (FEDERATED, POOLED, *OTHERS)
        return tuple(
            _series(marker, by_model[m], m, 1, looks[i % len(looks)]) for i, m in enumerate(models)
        )
    return tuple(
        _series(marker, by_model[models[0]], f"{marker.title} {c}", i, CLASSES[i % len(CLASSES)])
        for i, c in enumerate(marker.classes)
    )


def _series(
    marker: Marker, results: Sequence[CaseResult], name: str, index: int, stroke: LineStyle
) -> CurveSeries:
    """results: of one model and role."""
    seeds: dict[int, list[tuple[bool, float]]] = {}
    for result in results:
        value = result.labels[marker.id]
        probabilities = result.probabilities.get(marker.id, ())
        if isinstance(value, Unknown):
            continue
        if len(probabilities) == len(marker.classes) and np.isfinite(probabilities[index]):
            pair = (value == marker.classes[index], probabilities[index])
            seeds.setdefault(result.seed, []).append(pair)
    repeats = tuple(
        BinaryTask(np.array([t for t, _ in pairs], bool), np.array([p for _, p in pairs], float))
        for _, pairs in sorted(seeds.items())
    )
    first = repeats[0].truth if repeats else np.zeros(0, bool)
    return CurveSeries(name, stroke, repeats, len(first), int(first.sum()))


def roc(truth: Truth, probability: Probabilities) -> tuple[Probabilities, Probabilities]:
    """False and true positive rates as the threshold falls; equal probabilities move together.

    Both sides must have cases. Starts at (0, 0) and ends at (1, 1).
    """
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.diff(probability[order]) != 0, True)
    hits = np.cumsum(truth[order])[last]
    alarms = np.cumsum(~truth[order])[last]
    zero = np.zeros(1)
    return np.append(zero, alarms / alarms[-1]), np.append(zero, hits / hits[-1])


def _roc_labels(
    marker: Marker, series: Sequence[CurveSeries], rows: Sequence[ScoreRow]
) -> tuple[str, ...]:
    external = external_rows(rows)
    out = []
    for curve in series:
        row = external.get((curve.name, marker.id, "auc"))
        area = f"AUC {estimate(row, HEADLINE_DIGITS)}" if row else _sides(curve)
        out.append(f"{model_title(curve.name)}: {area}")
    return tuple(out)


def _draw_roc(
    series: Sequence[CurveSeries], labels: Sequence[str], title: str, figure: Figure
) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1)
    for curve, text in zip(series, labels, strict=True):
        for repeat, question in enumerate(curve.repeats if curve.drawable else ()):
            axes.plot(
                *roc(question.truth, question.probability),
                curve.stroke.line,
                color=curve.stroke.colour,
                linewidth=1.8 if len(curve.repeats) == 1 else 1.2,
                label="" if repeat else label(text, LONGEST_KEY),
            )
    if not any(s.drawable for s in series):
        _write_note(axes, "No ROC curve: only one class\nhas cases.")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.set_title(title)
    _unit_square(axes)
    _key(figure, axes)


@dataclass(frozen=True)
class _ReliabilityCurve:
    """A calibration curve. sizes: of its points."""

    series: CurveSeries
    x: tuple[float, ...]
    y: tuple[float, ...]
    sizes: tuple[float, ...]


def _bins(series: CurveSeries) -> _ReliabilityCurve:
    truth = np.concatenate([q.truth for q in series.repeats])
    probability = np.concatenate([q.probability for q in series.repeats])
    bins = max(1, min(MOST_BINS, series.cases // CASES_A_BIN))
    points = calibration_curve(truth, probability, bins)
    return _ReliabilityCurve(
        series,
        tuple(p.predicted for p in points),
        tuple(p.observed for p in points),
        tuple(LARGEST_POINT * max(0.1, p.n / len(truth)) for p in points),
    )


def _calibration_plot(
    name: str, words: str, title: str, series: Sequence[CurveSeries], rug: bool = False
) -> Plot:
    curves = tuple(_bins(s) for s in series if s.cases)
    texts = [
        f"{model_title(c.series.name)}: "
        + ", ".join(
            f"predicted {number(a, 2)} observed {number(b, 2)}"
            for a, b in zip(c.x, c.y, strict=True)
        )
        for c in curves
    ]
    draw = partial(_draw_calibration, curves, series[0] if rug else None, title)
    return Plot(name, f"{words}. {'. '.join(texts)}.", SIDE, SIDE + 0.35, draw)


def _draw_calibration(
    curves: Sequence[_ReliabilityCurve], rug: CurveSeries | None, title: str, figure: Figure
) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1)
    for curve in curves:
        look = curve.series.stroke
        axes.plot(curve.x, curve.y, look.line, color=look.colour, linewidth=1.4)
        axes.scatter(
            curve.x,
            curve.y,
            s=curve.sizes,
            marker=look.marker,
            color=look.colour,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
        )
        name = label(model_title(curve.series.name), LONGEST_KEY)
        axes.plot(
            [],
            [],
            look.line,
            color=look.colour,
            marker=look.marker,
            markersize=5.5,
            linewidth=1.4,
            label=name,
        )
    if rug is not None and rug.cases:
        _rug(axes, rug)
    axes.set(xlabel="predicted probability", ylabel="observed fraction")
    axes.set_title(title)
    _unit_square(axes)
    _key(figure, axes)


def _size(marker: Marker, series: Sequence[CurveSeries]) -> str:
    """Number of cases and, of two classes, of the second."""
    if len(marker.classes) == 2:
        most = max(series, key=lambda s: s.cases)
        return f"n = {most.cases} ({most.positive} {marker.classes[1]})"
    return f"n = {series[0].cases}"


def _sides(series: CurveSeries) -> str:
    return f"{series.positive} of {series.cases} cases"


def _write_note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", backgroundcolor="white")


def _rug(axes: Axes, series: CurveSeries) -> None:
    """Ticks for the cases of the first seed: at the top with the class, at the bottom without."""
    question = series.repeats[0]
    for height, picked in ((1.03, question.truth), (-0.03, ~question.truth)):
        probabilities = question.probability[picked]
        axes.plot(
            probabilities,
            np.full(len(probabilities), height),
            "|",
            color=GREY,
            markersize=6,
            markeredgewidth=0.8,
        )


def _unit_square(axes: Axes) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.06, 1.06)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid()


def _key(figure: Figure, axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", handlelength=2.8)
