"""Figures of a calibration on external cases: calibration curves, coverage, error rates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gliofed.calibration.evaluation import ALL_GROUPS, CalibrationEvaluation
from gliofed.calibration.selective import SelectiveRiskRow
from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import number, short_title, site_title, with_interval
from gliofed.reporting.plots.forest_plot import (
    UNIT_LIMITS,
    WIDTH,
    ForestPanel,
    ForestPlot,
    PointEstimate,
    forest_plot,
)
from gliofed.reporting.plots.probability_curves import reliability_plots
from gliofed.reporting.plots.style import BLUE, GREY, Plot, small
from gliofed.reporting.study.content import ScoredPredictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def before_and_after(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """Calibration curves of each marker; empty without evaluated results."""
    evaluation = scored.calibration
    if evaluation is None or not evaluation.results:
        return ()
    before = [r for r in scored.results if r.model == evaluation.model]
    return tuple(p for m in MARKERS for p in reliability_plots(m, before, evaluation.results))


def coverage_plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """Coverage of prediction sets at each hospital, with the target."""
    evaluation = scored.calibration
    if evaluation is None or not evaluation.sets:
        return ()
    by_cell = {(r.site, r.marker): r for r in evaluation.sets if r.label == ALL_GROUPS}
    sites = tuple(dict.fromkeys(r.site for r in evaluation.sets))
    target = 1 - evaluation.config.alpha
    panels = tuple(
        ForestPanel(
            short_title(m.id, ""),
            tuple(
                PointEstimate(r.value, r.low, r.high, r.note)
                for r in (by_cell[s, m.id] for s in sites)
            ),
            target,
            UNIT_LIMITS,
        )
        for m in MARKERS
    )
    axis = f"coverage of prediction sets, 95 % interval; vertical line: target {target:.2f}"
    words = f"Coverage of prediction sets by hospital; target {target:.2f}:"
    lattice = ForestPlot(tuple(map(site_title, sites)), panels, axis)
    return (forest_plot("coverage", words, lattice),)


def risk_plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """Error rate over the share of accepted cases, the most confident first."""
    evaluation = scored.calibration
    if evaluation is None or not any(r.value is not None for r in evaluation.risks):
        return ()
    points = [
        f"{short_title(r.marker, '')}, {r.coverage:.2f} of cases: "
        f"{with_interval(r.value, r.low, r.high, 2)}"
        for r in evaluation.risks
        if r.coverage is not None
    ]
    words = f"Error rate among the most confident cases, external test: {'; '.join(points)}."
    return (Plot("errors-kept", words, WIDTH, 2.5, partial(_draw, evaluation), 2),)


def _draw(evaluation: CalibrationEvaluation, figure: Figure) -> None:
    every = figure.subplots(1, len(MARKERS), sharey=True, squeeze=False)[0]
    for axes, marker in zip(every, MARKERS, strict=True):
        rows = [r for r in evaluation.risks if r.marker == marker.id and r.coverage is not None]
        _curve(axes, rows)
        n = max((r.n for r in rows), default=0)
        name = short_title(marker.id, "")
        axes.set_title(f"{name}, n = {n}", fontsize=small())
        axes.axhline(evaluation.config.risk, color="#8a8a8a", linewidth=1, linestyle="--")
        axes.set_xlim(0.67, 1.03)
        axes.grid()
    every[0].set_ylim(bottom=0)
    every[0].set_ylabel("error rate")
    target = number(evaluation.config.risk, 2)
    figure.supxlabel(
        f"share of cases, the most confident first; dashed: target {target}", fontsize=small()
    )


def _curve(axes: Axes, rows: list[SelectiveRiskRow]) -> None:
    by_coverage = {r.coverage: r for r in rows if r.coverage is not None}
    drawn = sorted((c, r.value) for c, r in by_coverage.items() if r.value is not None)
    if not drawn:
        axes.text(
            0.85, 0.05, "no case", ha="center", fontsize=small(), fontstyle="italic", color=GREY
        )
    for c, r in by_coverage.items():
        if r.low is not None and r.high is not None:
            axes.plot([c, c], [r.low, r.high], color=BLUE, linewidth=1.4)
    axes.plot([c for c, _ in drawn], [v for _, v in drawn], "-o", color=BLUE, markersize=4)
