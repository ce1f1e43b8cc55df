"""Colours, line styles and fonts of all figures, and figures as images inside a page."""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from gliofed.runtime.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito 2008, "Color Universal Design": distinguishable with every common colour blindness.
BLACK, BLUE, SKY, ORANGE = "#000000", "#0072B2", "#56B4E9", "#E69F00"
GREEN, VERMILLION, PURPLE, GREY = "#009E73", "#D55E00", "#CC79A7", "#666666"
INK: Final = "#1a1a1a"

_MEASURED_FONT: Final = "DejaVu Sans"
_SHOWN_FONTS: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, 'DejaVu Sans'"
_STYLE: Final[Mapping[str, object]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gliofed",
    "text.parse_math": False,
    "font.family": [_MEASURED_FONT],
    "font.size": 9,
    "text.color": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
}
_PRINT: Final[Mapping[str, object]] = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "lines.linewidth": 1.4,
    "pdf.fonttype": 42,  # text stays text
}
_PRINT_FONTS: Final = "Arial, Helvetica, 'DejaVu Sans', sans-serif"
_LEAST_POINTS: Final = 7.0
COLUMN_MM: Final[Mapping[int, float]] = {1: 85.0, 2: 174.0}
"""Widths of one and of two columns of a journal."""


@dataclass(frozen=True)
class LineStyle:
    """The style of a model's line, never by colour alone."""

    colour: str
    line: str
    marker: str


FEDERATED: Final = LineStyle(BLUE, "-", "o")
POOLED: Final = LineStyle(VERMILLION, "--", "s")
ALONE: Final = LineStyle(GREY, ":", "D")
OTHERS: Final = (
    LineStyle(GREEN, "-.", "^"),
    LineStyle(PURPLE, ":", "v"),
    LineStyle(ORANGE, "--", "P"),
    LineStyle(SKY, "-.", "X"),
    LineStyle(BLACK, ":", "h"),
)
CLASSES: Final = (
    LineStyle(BLACK, "-", "o"),
    LineStyle(GREEN, "--", "^"),
    LineStyle(PURPLE, "-.", "s"),
    LineStyle(SKY, ":", "D"),
)


def line_style_of(model: str) -> LineStyle:
    """The stroke of a model by its name."""
    return {"federated": FEDERATED, "pooled": POOLED}.get(model, ALONE)


@dataclass(frozen=True)
class Plot:
    """A figure, drawn on demand for a page or for print.

    name: of the file. alt: alternative text. width, height: inches on the page. draw: puts
    it onto an empty figure. columns: of a journal's page that it fills in print.
    """

    name: str
    alt: str
    width: float
    height: float
    draw: Callable[[Figure], None]
    columns: Literal[1, 2] = 1


@dataclass(frozen=True)
class Picture:
    """An image that needs no other file. src: a data URI. alt: alternative text.

    width, height: CSS pixels at natural size.
    """

    src: str
    alt: str
    width: int
    height: int


@contextmanager
def plot_style(more: Mapping[str, object] | None = None) -> Iterator[None]:
    """A context with the style of gliofed, independent of the user's matplotlib settings.

    more: further settings. Warnings on missing letters are silenced, since the page uses the
    reader's fonts.
    """
    from matplotlib import style

    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with style.context(["default", {**_STYLE, **(more or {})}]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from")
            yield
    finally:
        log.setLevel(level)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches wide and high, without window or global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def vector_picture(figure: Figure, alt: str, dpi: int = 72) -> Picture:
    """The figure as SVG in a data URI: the same bytes for the same figure.

    dpi: how finely images inside the figure are sampled.
    """
    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", dpi=dpi, metadata=nothing)
    svg = out.getvalue().replace(f"'{_MEASURED_FONT}'", _SHOWN_FONTS)
    encoded = base64.b64encode(svg.encode()).decode("ascii")
    width, height = (round(96 * side) for side in figure.get_size_inches())
    return Picture(f"data:image/svg+xml;base64,{encoded}", alt, width, height)


def raster_picture(figure: Figure, alt: str, dpi: int) -> Picture:
    """The figure as PNG in a data URI, for what is a picture of voxels. As `vector_picture`."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    encoded = base64.b64encode(out.getvalue()).decode("ascii")
    width, height = (round(96 * side) for side in figure.get_size_inches())
    return Picture(f"data:image/png;base64,{encoded}", alt, width, height)


def screen_picture(plot: Plot) -> Picture:
    """The plot on a page."""
    with plot_style():
        figure = new_figure(plot.width, plot.height)
        plot.draw(figure)
        return vector_picture(figure, plot.alt)


@dataclass(frozen=True)
class PrintFigures:
    """single: each plot as SVG, by its name. document: all as the pages of one PDF; empty without a
    plot."""

    single: Mapping[str, bytes]
    document: bytes


def print_figures(plots: Sequence[Plot]) -> PrintFigures:
    """The plots at the width of a journal's column.

    Vector graphics, letters 7 to 8 points high, no date, equal bytes for equal plots. The SVG has
    text; the PDF embeds the fonts once.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    document, single = io.BytesIO(), {}
    with plot_style(_PRINT), PdfPages(document, metadata={"CreationDate": None}) as pages:
        for plot in plots:
            width, out = COLUMN_MM[plot.columns] / 25.4, io.BytesIO()
            figure = new_figure(width, plot.height * width / plot.width)
            plot.draw(figure)
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
            figure.set_layout_engine("none")  # it is laid out, for the same size
            pages.savefig(figure)
            svg = out.getvalue().replace(f"'{_MEASURED_FONT}'".encode(), _PRINT_FONTS.encode())
            single[plot.name] = svg
    return PrintFigures(single, document.getvalue() if single else b"")


def small() -> float:
    """The smallest font size in points: 8 on the page, and in print the minimum of journals."""
    from matplotlib import rcParams

    return max(_LEAST_POINTS, float(rcParams["font.size"]) * 8 / 9)


def label(text: str, longest: int = 34) -> str:
    """A name fit for a figure: printable and not too long."""
    return printable(text, longest)
