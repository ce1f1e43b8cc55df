"""The quality control figure of a prepared case.

One row a sequence, three planes through the tumour or the middle of the brain. The figure is drawn
from the prepared entry alone, so it shows nothing outside the brain mask.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from gliofed.data.store import PreparedCase, unwritable_error
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.preprocessing.template import mni152
from gliofed.runtime.files import write_bytes
from gliofed.runtime.printable import printable
from gliofed.types import SEQUENCES, Case, PreparationMeasures, Sequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_VERSION: Final = "figure-2"
"""Changes with every change of the drawing, so that older figures are drawn again."""
BRAIN, EXPERT, EDGES, TROUBLE = "#56b4e9", "#e69f00", "#33e6a0", "#ff6d4d"
TEMPLATE: Final = "#9a9a9a"
"""Of Okabe and Ito 2008, lighter on black."""
PLANES: Final = (("axial", "R", "L"), ("coronal", "R", "L"), ("sagittal", "A", "P"))
ROWS: Final = (Sequence.FLAIR, Sequence.T2, Sequence.T1CE, Sequence.T1)
"""Rows from the top, below the reference."""
EDGE_SHARE: Final = 0.82
"""Quantile of the gradient within the brain's slice above which edges are drawn."""
EDGES_MM: Final = 6.0
"""Edges are drawn only deeper than this in the brain, away from its surface."""
WIDTH: Final = 8.0
ROW: Final = 2.5
DOTS_PER_INCH: Final = 100
GREYS: Final = 32
"""Few grey levels keep the file small."""
LEAD: Final = 0.18
"""Inches from line to line of the title."""
LINE: Final = 110
"""Letters a line of the title."""

Grey = NDArray[np.float32]
Flags = NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)


def figure_name(case: Case) -> str:
    """`<site>_<id>.png`, valid on every file system; a hash keeps changed names distinct."""
    name = f"{case.site}_{case.id}"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:100]
    if plain != name:
        plain += f"_{hashlib.sha256(f'{case.site}/{case.id}'.encode()).hexdigest()[:8]}"
    return f"{plain}.png"


def update_figure(prepared: PreparedCase, why: tuple[str, ...], path: Path) -> None:
    """Draw the figure to `path`, unless the file shows this entry and these faults already.

    Raises UnwritableError.
    """
    stamp = _stamp(prepared, why)
    try:
        if path.is_file():
            with path.open("rb") as file:
                if stamp.encode() in file.read(4096):
                    return
        write_bytes(path, draw_figure(prepared, why))
    except OSError as error:
        raise unwritable_error(path.parent, error) from None


def _stamp(prepared: PreparedCase, why: tuple[str, ...]) -> str:
    """A hash of everything that the figure shows, for its metadata."""
    content = [FIGURE_VERSION, str(prepared.case), prepared.key, asdict(prepared.measures), why]
    return "gliofed " + hashlib.sha256(json.dumps(content).encode()).hexdigest()


def draw_figure(prepared: PreparedCase, why: tuple[str, ...]) -> bytes:
    """The figure as PNG. why: the case's faults, empty where it passes."""
    from matplotlib.figure import Figure

    sequences = _sequences(prepared)
    title = _lines(
        f"{prepared.case}: " + ("excluded" if why else "passed"), format_measures(prepared.measures)
    )
    faults = [line for fault in why for line in _lines(fault)]
    head = LEAD * (len(title) + len(faults)) + 0.15
    height = head + ROW * len(sequences) + 0.45
    with _default_style():
        figure = Figure(figsize=(WIDTH, height), facecolor="black")
        for number, line in enumerate([*title, *faults]):
            colour = TROUBLE if number >= len(title) else "white"
            figure.text(
                0.01,
                1 - (0.1 + LEAD * number) / height,
                line,
                color=colour,
                fontsize=9,
                va="top",
                parse_math=False,
            )
        _panels(figure, prepared, sequences, head, height)
        on_template = prepared.measures.template_dice is not None
        legend = (
            (0.01, BRAIN, "brain mask"),
            (0.13, EXPERT, "expert's mask"),
            (0.29, EDGES, f"edges of {sequences[0].value}, the reference"),
            (0.55, TEMPLATE, "MNI152" if on_template else ""),
        )
        for at, colour, words in legend:
            figure.text(at, 0.06 / height, words, color=colour, fontsize=8)
        figure.text(0.99, 0.06 / height, RESEARCH_USE_ONLY, color="white", fontsize=8, ha="right")
        return _png(figure, _stamp(prepared, why))


def _sequences(prepared: PreparedCase) -> list[Sequence]:
    """The sequences of the case, the reference first: the one without a measured alignment."""
    present = [s for s in ROWS if prepared.present[SEQUENCES.index(s)]]
    return sorted(present, key=lambda s: s in prepared.measures.alignment)


def format_measures(measures: PreparationMeasures) -> str:
    """The measures of a case as text."""
    parts = [f"brain {measures.brain_litres:.2f} L"]
    if measures.template_dice is not None:
        parts.append(f"overlap with MNI152 {measures.template_dice:.2f}")
    if measures.alignment:
        parts.append(f"alignment {min(measures.alignment.values()):.2f}")
    return ", ".join(parts)


def _lines(*texts: str) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(printable(text), LINE)]


def _panels(
    figure: Figure, prepared: PreparedCase, sequences: list[Sequence], head: float, height: float
) -> None:
    from matplotlib import colormaps

    greys = colormaps["gray"].resampled(GREYS)
    sizes = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    volumes = {s: prepared.image[SEQUENCES.index(s)].astype(np.float32) for s in sequences}
    brain = np.logical_or.reduce([v != 0 for v in volumes.values()])
    drawn = np.zeros(brain.shape, bool) if prepared.mask is None else prepared.mask > 0
    at = _middle(drawn if drawn.any() else brain)
    behind = _template(prepared, at)
    for row, sequence in enumerate(sequences):
        bottom = 1 - (head + ROW * (row + 1)) / height
        for column, (name, left, right) in enumerate(PLANES):
            axes = figure.add_axes((column / 3, bottom, 1 / 3 - 0.005, (ROW - 0.05) / height))
            axes.axis("off")
            tall, wide = _size(name, sizes)
            plane = _cut(volumes[sequence], name, at)
            axes.imshow(
                _greys(plane, volumes[sequence]),
                cmap=greys,
                vmin=0,
                vmax=1,
                aspect=tall / wide,
                interpolation="nearest",
            )
            _draw_contour(axes, behind[name], TEMPLATE)
            inside = ndimage.binary_fill_holes(_cut(brain, name, at))
            _draw_contour(axes, inside, BRAIN)
            _draw_contour(axes, _cut(drawn, name, at), EXPERT)
            if row:
                _draw_edges(axes, _cut(volumes[sequences[0]], name, at), inside, (tall, wide))
            for where, side in ((0.02, left), (0.98, right)):
                axes.text(
                    where,
                    0.5,
                    side,
                    transform=axes.transAxes,
                    color="white",
                    fontsize=9,
                    ha="left" if where < 0.5 else "right",
                    va="center",
                )
            if column == 0:
                axes.text(
                    0.02,
                    0.97,
                    sequence.value,
                    transform=axes.transAxes,
                    color="white",
                    fontsize=10,
                    va="top",
                )


def _template(prepared: PreparedCase, at: tuple[int, int, int]) -> dict[str, Flags]:
    """The brain of MNI152 in each plane, nothing where the case was not laid on it."""
    shape = prepared.image.shape[1:]
    if prepared.measures.template_dice is None:
        return {
            name: np.zeros(_cut(np.zeros(shape, bool), name, at).shape, bool)
            for name, _, _ in PLANES
        }
    template, brain = mni152()
    to_template = np.linalg.inv(template.affine) @ prepared.affine
    found = {}
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        slab = np.zeros(shape, bool)
        ranges = [np.arange(n) if a != axis else np.array([at[a]]) for a, n in enumerate(shape)]
        grid = np.stack(np.meshgrid(*ranges, indexing="ij"), -1)
        places = np.rint(apply_affine(to_template, grid)).astype(int)
        within = ((places >= 0) & (places < brain.shape)).all(-1)
        x, y, z = np.moveaxis(np.where(within[..., None], places, 0), -1, 0)
        slab[np.ix_(*ranges)] = brain[x, y, z] & within
        found[name] = _cut(slab, name, at)
    return found


def _middle(volume: Flags) -> tuple[int, int, int]:
    """The slice of each axis that holds most of `volume`."""
    x, y, z = (int(volume.sum(axis=tuple({0, 1, 2} - {a})).argmax()) for a in range(3))
    return x, y, z


def _cut(volume: NDArray[Kind], name: str, at: tuple[int, int, int]) -> NDArray[Kind]:
    """One plane of a RAS volume, rows downwards, the patient's right (or front) on the left."""
    x, y, z = at
    if name == "axial":
        return volume[::-1, ::-1, z].T
    return (volume[::-1, y, ::-1] if name == "coronal" else volume[x, ::-1, ::-1]).T


def _size(name: str, sizes: NDArray[np.float64]) -> tuple[float, float]:
    """Height and width of a plane's pixels, mm."""
    x, y, z = (float(s) for s in sizes)
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[name]


def _greys(plane: Grey, volume: Grey) -> Grey:
    inside = volume[volume != 0]
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    scaled = np.clip((plane - low) / max(high - low, 1e-6), 0, 1)
    return np.where(plane == 0, 0, 0.05 + 0.95 * scaled).astype(np.float32)


def _draw_contour(axes: Axes, mask: Flags, colour: str) -> None:
    """Draw the contour of a mask, closed also where it touches the edge of the plane."""
    if not mask.any():
        return
    rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
    axes.contour(
        columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=0.8
    )


def _draw_edges(axes: Axes, plane: Grey, inside: Flags, size: tuple[float, float]) -> None:
    """Draw the reference's strongest edges after a blur of 1.5 mm (Marr and Hildreth 1980).

    Where two sequences are registered, their tissue borders coincide whatever their contrasts.
    """
    core = ndimage.distance_transform_edt(inside, size) > EDGES_MM
    if not core.any():
        return
    sigma = [1.5 / s for s in size]
    steep = ndimage.gaussian_gradient_magnitude(plane, sigma)
    bend = ndimage.gaussian_laplace(plane, sigma)
    weak = ~core | (steep < np.quantile(steep[core], EDGE_SHARE))
    if weak.all() or not (bend[core].min() < 0 < bend[core].max()):
        return
    axes.contour(np.ma.masked_where(weak, bend), levels=[0], colors=[EDGES], linewidths=0.9)


@contextmanager
def _default_style() -> Iterator[None]:
    """Draw in matplotlib's default style, without warnings of missing letters."""
    from matplotlib import style

    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with style.context("default"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph .* missing from")
            warnings.filterwarnings("ignore", "No contour levels were found")
            yield
    finally:
        log.setLevel(level)


def _png(figure: Figure, stamp: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(
        out,
        format="png",
        dpi=DOTS_PER_INCH,
        facecolor="black",
        metadata={"Software": None, "Description": stamp},
    )
    return out.getvalue()
