"""The figures of the results page, as SVG or PNG text that can stand inside HTML."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from gliofed.markers import MARKERS, Marker
from gliofed.report.content import Curve, Mosaic
from gliofed.score.calibration import calibration_curve
from gliofed.score.results import CaseResult, ScoreRow
from gliofed.types import Unknown

# Okabe & Ito 2008: told apart with any colour vision
COLOURS = {"federated": "#0072B2", "pooled": "#D55E00", "alone": "#6b6b6b"}
MARKS = {"federated": "o", "pooled": "s", "alone": "d"}
STYLE: Final[Mapping[Any, Any]] = {
    "svg.hashsalt": "gliofed",
    "svg.fonttype": "path",
    "font.size": 9,
}


def kind(model: str) -> str:
    """ "federated", "pooled" or "alone"."""
    return model.split(":", maxsplit=1)[0]


def forest(rows: Sequence[ScoreRow]) -> str:
    """Dice and each AUC of every model on the external cases, with intervals. SVG."""
    panels = [("mask", "dice", "Dice"), *((m.id, "auc", f"AUC {m.title}") for m in MARKERS)]

    def draw(figure: Figure) -> None:
        for axis, (task, metric, title) in zip(
            np.ravel(figure.subplots(1, len(panels))), panels, strict=True
        ):
            mine = [r for r in rows if (r.task, r.metric) == (task, metric)]
            mine = [r for r in mine if r.model != "alone:median"]
            for place, row in enumerate(reversed(mine)):
                _bar(axis, row, place)
            names = [r.model.replace("alone:", "") for r in reversed(mine)]
            axis.set_yticks(range(len(names)), names if task == "mask" else [""] * len(names))
            axis.set_xlim(0, 1)
            axis.set_title(title)
            axis.axvline(0.5, color="#bbbbbb", lw=0.8, zorder=0)

    return _svg(draw, (11, 0.32 * len({r.model for r in rows}) + 1.2))


def _bar(axis: Axes, row: ScoreRow, place: int) -> None:
    look = kind(row.model)
    if row.value is None:
        axis.text(0.5, place, "n/a", ha="center", va="center", color="#555555")
        return
    if row.low is not None and row.high is not None:
        axis.plot([row.low, row.high], [place, place], color=COLOURS[look], lw=1.5)
    axis.plot(row.value, place, MARKS[look], color=COLOURS[look])


def training(curves: Sequence[Curve]) -> str:
    """Soft Dice and losses by round; refused updates as crosses. SVG."""

    def draw(figure: Figure) -> None:
        tasks = ["dice", "mask", *(m.id for m in MARKERS)]
        titles = ["soft Dice", "loss: mask", *(f"loss: {m.title}" for m in MARKERS)]
        axes = np.ravel(figure.subplots(2, 3))
        for axis, task, title in zip(axes, tasks, titles, strict=True):
            for curve in curves:
                _line(axis, curve, task)
            axis.set_title(title)
            axis.set_xlabel("round")
        for name, colour in COLOURS.items():
            axes[0].plot([], [], color=colour, label=name)
        axes[0].legend(frameon=False)

    return _svg(draw, (11, 6))


def _line(axis: Axes, curve: Curve, task: str) -> None:
    look = kind(curve.model)
    points = [(p.round + 1, p.dice if task == "dice" else p.losses.get(task)) for p in curve.points]
    known = [(r, v) for r, v in points if v is not None]
    if known:
        faint = look == "alone"
        axis.plot(*zip(*known, strict=True), color=COLOURS[look], lw=0.8 if faint else 1.6,
                  alpha=0.5 if faint else 1)  # fmt: skip
    for point, (_, value) in zip(curve.points, points, strict=True):
        if point.refused and value is not None:
            axis.plot(point.round + 1, value, "x", color="black")


def roc(results: Sequence[CaseResult]) -> str:
    """ROC curves, federated and pooled; a three-class marker one against the rest. SVG."""

    def draw(figure: Figure) -> None:
        axes = np.ravel(figure.subplots(1, len(MARKERS)))
        for axis, marker in zip(axes, MARKERS, strict=True):
            count = 0
            for model in ("federated", "pooled"):
                truth, found = _known(results, model, marker)
                count = max(count, len(truth))
                for c in (1,) if len(marker.classes) == 2 else range(len(marker.classes)):
                    if len(truth) and 0 < (truth == c).sum() < len(truth):
                        far, hit, _ = roc_curve(truth == c, found[:, c])
                        style, label = ("-", "--", ":")[c % 3], f"{model}: {marker.classes[c]}"
                        axis.plot(far, hit, color=COLOURS[model], lw=1.4, ls=style, label=label)
            axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8)
            axis.set(title=f"{marker.title} (n = {count})", xlabel="1 - specificity",
                     xlim=(0, 1), ylim=(0, 1.01))  # fmt: skip
            if axis.lines[:-1]:
                axis.legend(frameon=False, fontsize=6, loc="lower right")
        axes[0].set_ylabel("sensitivity")

    return _svg(draw, (11, 3.1))


def calibration(results: Sequence[CaseResult]) -> str:
    """Predicted against observed, in bins of equal counts. SVG."""

    def draw(figure: Figure) -> None:
        axes = np.ravel(figure.subplots(1, len(MARKERS)))
        for axis, marker in zip(axes, MARKERS, strict=True):
            count = 0
            for model in ("federated", "pooled"):
                truth, found = _known(results, model, marker)
                count = max(count, len(truth))
                last = len(marker.classes) - 1
                points = calibration_curve(truth == last, found[:, last], 5)
                axis.plot([p.predicted for p in points], [p.observed for p in points],
                          MARKS[model] + "-", color=COLOURS[model], lw=1, label=model)  # fmt: skip
            axis.plot([0, 1], [0, 1], color="#bbbbbb", lw=0.8)
            axis.set(title=f"{marker.title} (n = {count})", xlim=(0, 1), ylim=(0, 1),
                     xlabel=f"predicted: {marker.classes[-1]}")  # fmt: skip
        axes[0].set_ylabel("observed fraction")
        axes[0].legend(frameon=False)

    return _svg(draw, (11, 3.1))


def mosaic(item: Mosaic) -> str:
    """One case in three planes, expert and predicted outline. PNG as base64 text."""

    def draw(figure: Figure) -> None:
        axes = np.ravel(figure.subplots(1, len(item.planes)))
        for axis, (name, grey, drawn, found, aspect) in zip(axes, item.planes, strict=True):
            axis.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
            for mask, colour, style in ((drawn, "#E69F00", "-"), (found, "#56B4E9", "--")):
                if mask.any():
                    axis.contour(mask, [0.5], colors=colour, linestyles=style, linewidths=1.6)
            left, right = ("A", "P") if name == "sagittal" else ("R", "L")
            for text, at in ((left, 0.03), (right, 0.97)):
                axis.text(at, 0.5, text, color="white", transform=axis.transAxes, ha="center",
                          va="center", fontsize=10)  # fmt: skip
            axis.set_title(name, color="white")
            axis.axis("off")
        figure.patch.set_facecolor("black")

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    draw(figure)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90, metadata={"Software": None})
    return base64.b64encode(data.getvalue()).decode()


def _known(
    results: Sequence[CaseResult], model: str, marker: Marker
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Truth and probabilities of the external cases with a label, seeds averaged."""
    of_case: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for r in results:
        unknown = isinstance(r.labels[marker.id], Unknown)
        if (r.model, r.role) == (model, "external") and not unknown:
            of_case[r.site, r.case].append(r)
    truth = [marker.classes.index(str(rs[0].labels[marker.id])) for rs in of_case.values()]
    found = [np.mean([r.probabilities[marker.id] for r in rs], axis=0) for rs in of_case.values()]
    return np.array(truth, np.int64), np.array(found, float).reshape(-1, len(marker.classes))


def _svg(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    with mpl.rc_context(dict(STYLE)):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return base64.b64encode(whole[whole.index("<svg") :].encode()).decode()
