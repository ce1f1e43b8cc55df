"""How far the markers' probabilities tell classes apart, and whether they can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliofed.markers import Marker
from gliofed.report.drawing import (
    CLASSES,
    GREY,
    Picture,
    Stroke,
    drawing,
    new_figure,
    picture,
    stroke_of,
)
from gliofed.report.tables import HEADLINE_DIGITS, external_rows
from gliofed.report.wording import estimate, number
from gliofed.score.calibration import calibration_curve
from gliofed.score.results import CaseResult, ScoreRow
from gliofed.types import Unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CASES_A_BIN = 8
MOST_BINS = 8
MODELS = ("federated", "pooled")
SIDE = 3.7
LARGEST_POINT = 150.0

Truth = NDArray[np.bool_]
Chance = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """One class against the rest, as one model answered it in one repeat."""

    truth: Truth
    chance: Chance


@dataclass(frozen=True)
class Series:
    """One line of a figure: the same question in every repeat. cases: of one repeat."""

    name: str
    stroke: Stroke
    repeats: tuple[Question, ...]
    cases: int
    positive: int

    @property
    def drawable(self) -> bool:
        """Whether there are cases on both sides."""
        return 0 < self.positive < self.cases


def marker_pictures(
    marker: Marker, results: Sequence[CaseResult], rows: Sequence[ScoreRow]
) -> tuple[Picture, ...]:
    """ROC and calibration on the external cases; empty where no label is known.

    Two classes: federated against pooled for the second class. More: each class against the
    rest, federated alone.
    """
    series = marker_series(marker, results)
    if not any(s.cases for s in series):
        return ()
    return (_roc_picture(marker, series, rows), _calibration_picture(marker, series))


def marker_series(marker: Marker, results: Sequence[CaseResult]) -> tuple[Series, ...]:
    """The lines of the marker's figures; answers that are not finite are left out."""
    if len(marker.classes) == 2:
        picks = [(m, m, 1, stroke_of(m)) for m in MODELS]
    else:
        strokes = [CLASSES[i % len(CLASSES)] for i in range(len(marker.classes))]
        picks = [
            (f"{marker.title} {c}", MODELS[0], i, strokes[i]) for i, c in enumerate(marker.classes)
        ]
    return tuple(_series(marker, results, *pick) for pick in picks)


def _series(
    marker: Marker, results: Sequence[CaseResult], name: str, model: str, index: int, stroke: Stroke
) -> Series:
    seeds: dict[int, list[tuple[bool, float]]] = {}
    for result in results:
        value = result.labels[marker.id]
        chances = result.probabilities.get(marker.id, ())
        if result.model != model or result.role != "external" or isinstance(value, Unknown):
            continue
        if len(chances) == len(marker.classes) and np.isfinite(chances[index]):
            pair = (value == marker.classes[index], chances[index])
            seeds.setdefault(result.seed, []).append(pair)
    repeats = tuple(
        Question(np.array([t for t, _ in own], bool), np.array([p for _, p in own], float))
        for _, own in sorted(seeds.items())
    )
    first = repeats[0].truth if repeats else np.zeros(0, bool)
    return Series(name, stroke, repeats, len(first), int(first.sum()))


def roc(truth: Truth, chance: Chance) -> tuple[Chance, Chance]:
    """False and true positive rates as the threshold falls; equal chances move together.

    Both sides must have cases. Starts at (0, 0) and ends at (1, 1).
    """
    order = np.argsort(-chance, kind="stable")
    last = np.append(np.diff(chance[order]) != 0, True)
    hits = np.cumsum(truth[order])[last]
    alarms = np.cumsum(~truth[order])[last]
    zero = np.zeros(1)
    return np.append(zero, alarms / alarms[-1]), np.append(zero, hits / hits[-1])


def _roc_picture(marker: Marker, series: Sequence[Series], rows: Sequence[ScoreRow]) -> Picture:
    found = external_rows(rows)
    words = []
    with drawing():
        figure = new_figure(SIDE, SIDE + 0.35)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1)
        for one in series:
            row = found.get((one.name, marker.id, "auc"))
            area = f"AUC {estimate(row, HEADLINE_DIGITS)}" if row else _sides(one)
            words.append(f"{one.name}: {area}")
            if not one.drawable:
                words[-1] += ", no curve: only one side has cases"
                continue
            for repeat, question in enumerate(one.repeats):
                axes.plot(*roc(question.truth, question.chance), one.stroke.line,
                          color=one.stroke.colour, linewidth=1.8 if len(one.repeats) == 1 else 1.2,
                          label="" if repeat else words[-1])  # fmt: skip
        if not any(s.drawable for s in series):
            _say(axes, "No ROC curve: only one class\nhas cases.")
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        axes.set_title(f"ROC, {_size(marker, series)}")
        _unit_square(axes)
        _key(figure, axes)
        return picture(figure, f"{marker.title}, ROC, {_size(marker, series)}. {'. '.join(words)}.")


def _calibration_picture(marker: Marker, series: Sequence[Series]) -> Picture:
    words = []
    with drawing():
        figure = new_figure(SIDE, SIDE + 0.35)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#b0b0b0", linewidth=1)
        for one in series:
            if not one.cases:
                continue
            truth = np.concatenate([q.truth for q in one.repeats])
            chance = np.concatenate([q.chance for q in one.repeats])
            bins = max(1, min(MOST_BINS, one.cases // CASES_A_BIN))
            points = calibration_curve(truth, chance, bins)
            x, y = [p.predicted for p in points], [p.observed for p in points]
            sizes = [LARGEST_POINT * max(0.1, p.n / len(truth)) for p in points]
            look = one.stroke
            axes.plot(x, y, look.line, color=look.colour, linewidth=1.4)
            axes.scatter(x, y, s=sizes, marker=look.marker, color=look.colour,
                         edgecolors="white", linewidths=0.6, zorder=3)  # fmt: skip
            axes.plot([], [], look.line, color=look.colour, marker=look.marker, markersize=5.5,
                      linewidth=1.4, label=one.name)  # fmt: skip
            pairs = zip(x, y, strict=True)
            said = ", ".join(f"predicted {number(a, 2)} observed {number(b, 2)}" for a, b in pairs)
            words.append(f"{one.name}: {said}")
        _rug(axes, series)
        axes.set(xlabel="predicted probability", ylabel="observed fraction")
        axes.set_title(f"Calibration, {_size(marker, series)}")
        _unit_square(axes)
        _key(figure, axes)
        alt = f"{marker.title}, calibration, {_size(marker, series)}. {'. '.join(words)}."
        return picture(figure, alt)


def _size(marker: Marker, series: Sequence[Series]) -> str:
    """How many cases, and of two classes how many of the second."""
    if len(marker.classes) == 2:
        most = max(series, key=lambda s: s.cases)
        return f"n = {most.cases} ({most.positive} {marker.classes[1]})"
    return f"n = {series[0].cases}"


def _sides(one: Series) -> str:
    return f"{one.positive} of {one.cases} cases"


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", backgroundcolor="white")


def _rug(axes: Axes, series: Sequence[Series]) -> None:
    """Each case of the federated model's first repeat: with the class above, without below."""
    if len(series) > len(MODELS) or not series[0].cases:
        return
    question = series[0].repeats[0]
    for height, picked in ((1.03, question.truth), (-0.03, ~question.truth)):
        chances = question.chance[picked]
        axes.plot(chances, np.full(len(chances), height), "|", color=GREY, markersize=6,
                  markeredgewidth=0.8)  # fmt: skip


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
