"""The expert's and the predicted segmentation over FLAIR, one picture for each plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gliofed.errors import DataError
from gliofed.reporting.html.formatting import count, model_title, number
from gliofed.reporting.plots.style import ORANGE, SKY, Picture, plot_style, vector_picture
from gliofed.reporting.study.content import ExamplePlane, SegmentationExample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXPERT: Final = (ORANGE, "solid")
PREDICTED: Final = (SKY, "dashed")
SIDES: Final = {"sagittal": ("A", "P")}
SIDE_WORDS: Final = {"R": "patient's right", "L": "left", "A": "front", "P": "back"}
HEIGHT: Final = 3.0
DOTS_PER_INCH: Final = 144


@dataclass(frozen=True)
class SegmentationFigure:
    """One case's planes. rank: best, median or worst. expert: whether there is an expert mask."""

    rank: str
    case: str
    model: str
    dice: str
    expert: bool
    planes: tuple[tuple[str, Picture], ...]


def segmentation_figure(example: SegmentationExample) -> SegmentationFigure:
    """The planes as pictures. Raises DataError where a mask does not fit its image."""
    planes = []
    for plane in example.planes:
        name, grey, expert, predicted, _ = plane
        if grey.ndim != 2 or not grey.shape == expert.shape == predicted.shape:
            raise DataError(
                f"{example.case}, {name}: image {grey.shape}, expert mask {expert.shape} and "
                f"predicted mask {predicted.shape} must be 2D and of one shape; cut all three "
                "from the same grid"
            )
        planes.append((name, _plane(example, plane)))
    return SegmentationFigure(
        rank=example.rank,
        case=example.case,
        model=model_title(example.model),
        dice=number(example.dice, 2),
        expert=any(bool(expert.any()) for _, _, expert, _, _ in example.planes),
        planes=tuple(planes),
    )


def _plane(example: SegmentationExample, plane: ExamplePlane) -> Picture:
    name, grey, expert, predicted, aspect = plane
    with plot_style():
        figure = slice_figure(name, grey, aspect, ((expert, *EXPERT), (predicted, *PREDICTED)))
        seen = (
            f"expert segmentation {count(int(expert.sum()), 'pixel')}, predicted "
            f"{count(int(predicted.sum()), 'pixel')}"
        )
        alt = f"{example.case}, {name} FLAIR slice, {orientation_text(name)}: {seen}."
        return vector_picture(figure, alt, DOTS_PER_INCH)


def orientation_text(name: str) -> str:
    """Which side of the patient is on the left of a plane's image."""
    return f"{SIDE_WORDS[SIDES.get(name, ('R', 'L'))[0]]} on the left of the image"


def slice_figure(
    name: str,
    image: NDArray[np.float32],
    aspect: float,
    masks: Sequence[tuple[NDArray[np.bool_], str, str]],
) -> Figure:
    """One slice with its sides written on it.

    image: (rows, columns) grey or (rows, columns, 3), 0 to 1. masks: each with the colour and
    style of its line. aspect: height by width of a pixel.
    """
    from matplotlib.figure import Figure

    rows, columns = image.shape[:2]
    shape = min(max(rows * aspect / columns, 0.5), 2.0)
    figure = Figure(figsize=(HEIGHT / shape, HEIGHT), facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
    for mask, colour, line in masks:
        _outline(axes, mask, colour, line)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    left, right = SIDES.get(name, ("R", "L"))
    for at, side, align in ((0.03, left, "left"), (0.97, right, "right")):
        axes.text(
            at,
            0.5,
            side,
            transform=axes.transAxes,
            color="white",
            fontsize=12,
            fontweight="bold",
            ha=align,
            va="center",
        )
    return figure


def _outline(axes: Axes, mask: NDArray[np.bool_], colour: str, line: str) -> None:
    """The mask's border, closed also where it touches the edge of the image."""
    if not mask.any():
        return
    rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
    axes.contour(
        columns,
        rows,
        np.pad(mask, 1).astype(float),
        levels=[0.5],
        colors=[colour],
        linestyles=[line],
        linewidths=1.8,
    )
