"""Points with intervals in one figure: a line for each group or model, a panel for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from gliofed.reporting.html.formatting import NOT_AVAILABLE, with_interval
from gliofed.reporting.plots.style import BLUE, GREY, VERMILLION, Plot, label, small

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH: Final = 8.4
LINE: Final = 0.24
LONGEST: Final = 30
LONGEST_TITLE: Final = 22
UNIT_LIMITS: Final = (-0.03, 1.03)
"""Limits of an axis from 0 to 1."""


@dataclass(frozen=True)
class PointEstimate:
    """A value with its interval; without a value, `why` is shown in its place. full: a filled
    point, else a hollow one."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = NOT_AVAILABLE
    full: bool = True


@dataclass(frozen=True)
class ForestPanel:
    """spots: one a line of the plot; None for an empty cell. mark: position of the vertical line.
    own: position of a dashed line, or None. limits: of the axis."""

    title: str
    spots: tuple[PointEstimate | None, ...]
    mark: float
    limits: tuple[float, float]
    own: float | None = None


@dataclass(frozen=True)
class ForestPlot:
    """lines: the title of each line. axis: label of the values."""

    lines: tuple[str, ...]
    panels: tuple[ForestPanel, ...]
    axis: str


def forest_plot(name: str, words: str, lattice: ForestPlot) -> Plot:
    """A plot two columns wide in print. words: start of the alternative text; every value
    follows."""
    values = [
        f"{panel.title}, {line}: {with_interval(spot.value, spot.low, spot.high, 2)}"
        for panel in lattice.panels
        for line, spot in zip(lattice.lines, panel.spots, strict=True)
        if spot is not None and spot.value is not None
    ]
    height = 0.75 + LINE * len(lattice.lines)
    text = f"{words} {'; '.join(values) or 'no value'}."
    return Plot(name, text, WIDTH, height, partial(_draw, lattice), 2)


def axis_limits(values: Sequence[float | None], mark: float, least: float) -> tuple[float, float]:
    """Limits of an axis with `mark` in its middle that hold all values; at least `least` wide on
    either side."""
    far = max([least, *(abs(v - mark) for v in values if v is not None and np.isfinite(v))])
    return mark - 1.08 * far, mark + 1.08 * far


def _draw(lattice: ForestPlot, figure: Figure) -> None:
    lines = lattice.lines
    every = figure.subplots(1, len(lattice.panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(every, lattice.panels, strict=True):
        for place in range(0, len(lines), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f4f6f8", linewidth=0, zorder=0)
        axes.axvline(panel.mark, color="#8a8a8a", linewidth=1.2, zorder=1)
        if panel.own is not None:
            axes.axvline(panel.own, color=BLUE, linewidth=1, linestyle="--", zorder=1)
        axes.set_xlim(*panel.limits)
        for place, spot in enumerate(panel.spots):
            if spot is not None:
                _draw_point(axes, place, spot, panel.mark)
        axes.set_title(label(panel.title, LONGEST_TITLE), fontsize=small())
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _ticks(axes, panel.limits)
        axes.grid(axis="x")
    every[0].set_yticks(range(len(lines)), [label(line, LONGEST) for line in lines])
    figure.supxlabel(lattice.axis, fontsize=small())


def _ticks(axes: Axes, limits: tuple[float, float]) -> None:
    if limits == UNIT_LIMITS:
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    else:
        axes.locator_params(axis="x", nbins=4)


def _draw_point(axes: Axes, place: int, spot: PointEstimate, mark: float) -> None:
    if spot.value is None:
        axes.text(
            0.5,
            place,
            label(spot.why, 20),
            transform=axes.get_yaxis_transform(),
            color=GREY,
            ha="center",
            va="center",
            fontsize=small(),
            fontstyle="italic",
        )
        return
    colour = VERMILLION if spot.high is not None and spot.high < mark else BLUE
    if spot.low is not None and spot.high is not None:
        axes.plot([spot.low, spot.high], [place, place], color=colour, linewidth=1.8)
    face = colour if spot.full else "white"
    axes.plot(
        [spot.value],
        [place],
        "s" if colour == VERMILLION else "o",
        color=colour,
        markersize=5,
        markerfacecolor=face,
        markeredgewidth=1.2,
        zorder=3,
    )
