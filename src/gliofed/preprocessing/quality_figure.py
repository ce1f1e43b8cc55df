"""One picture a prepared case, for the eye that judges what no number can.

A row for each sequence, three planes through the tumour or the brain's middle. Drawn from the
entry alone: what the brain mask cut away is gone, so it shows as an edge of the brain.
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

FIGURE_VERSION: Final = "figure-1"
"""Changed with every change of the drawing, so that older pictures are drawn again."""
BRAIN, EXPERT, EDGES, TROUBLE = "#56b4e9", "#e69f00", "#33e6a0", "#ff6d4d"
TEMPLATE: Final = "#9a9a9a"
"""Of Okabe and Ito 2008, lighter on black."""
PLANES: Final = (("axial", "R", "L"), ("coronal", "R", "L"), ("sagittal", "A", "P"))
ROWS: Final = (Sequence.FLAIR, Sequence.T2, Sequence.T1CE, Sequence.T1)
"""From the top, below the reference: the outline is drawn on T2/FLAIR."""
EDGE_SHARE: Final = 0.82
"""Edges are shown where the reference is steeper than in this share of the brain's slice."""
EDGES_MM: Final = 6.0
"""And this deep in the brain: its own surface would outshine the rest."""
WIDTH: Final = 8.0
ROW: Final = 2.5
DOTS_PER_INCH: Final = 100
GREYS: Final = 32
"""Few, for the size of the file."""
LEAD: Final = 0.18
"""Inches from line to line of the title."""
LINE: Final = 110
"""Letters a line of the title."""

Grey = NDArray[np.float32]
Flags = NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)


def figure_name(case: Case) -> str:
    """`<site>_<id>.png`, fit for every file system; names that had to be changed stay apart."""
    name = f"{case.site}_{case.id}"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:100]
    if plain != name:
        plain += f"_{hashlib.sha256(f'{case.site}/{case.id}'.encode()).hexdigest()[:8]}"
    return f"{plain}.png"


def update_figure(prepared: PreparedCase, why: tuple[str, ...], path: Path) -> None:
    """Draw the figure to `path`, unless it is there of this entry with these faults.

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
    """Names all that a figure shows."""
    shown = [FIGURE_VERSION, str(prepared.case), prepared.key, asdict(prepared.measures), why]
    return "gliofed " + hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def draw_figure(prepared: PreparedCase, why: tuple[str, ...]) -> bytes:
    """The figure as PNG. why: the case's faults, empty where it is sound."""
    from matplotlib.figure import Figure

    shown = _shown(prepared)
    title = _lines(
        f"{prepared.case}: " + ("set aside" if why else "sound"), format_measures(prepared.measures)
    )
    faults = [line for fault in why for line in _lines(fault)]
    head = LEAD * (len(title) + len(faults)) + 0.15
    height = head + ROW * len(shown) + 0.45
    with _plain_drawing():
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
        _panels(figure, prepared, shown, head, height)
        on_template = prepared.measures.template_dice is not None
        legend = (
            (0.01, BRAIN, "brain mask"),
            (0.13, EXPERT, "expert's outline"),
            (0.29, EDGES, f"edges of {shown[0].value}, the reference"),
            (0.55, TEMPLATE, "MNI152" if on_template else ""),
        )
        for at, colour, words in legend:
            figure.text(at, 0.06 / height, words, color=colour, fontsize=8)
        figure.text(0.99, 0.06 / height, RESEARCH_USE_ONLY, color="white", fontsize=8, ha="right")
        return _png(figure, _stamp(prepared, why))


def _shown(prepared: PreparedCase) -> list[Sequence]:
    """The sequences that are there, the reference first: the one not measured against it."""
    there = [s for s in ROWS if prepared.present[SEQUENCES.index(s)]]
    return sorted(there, key=lambda s: s in prepared.measures.alignment)


def format_measures(measures: PreparationMeasures) -> str:
    """The measures of a case in words."""
    parts = [f"brain {measures.brain_litres:.2f} L"]
    if measures.template_dice is not None:
        parts.append(f"template {measures.template_dice:.2f}")
    if measures.alignment:
        parts.append(f"alignment {min(measures.alignment.values()):.2f}")
    return ", ".join(parts)


def _lines(*texts: str) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(printable(text), LINE)]


def _panels(
    figure: Figure, prepared: PreparedCase, shown: list[Sequence], head: float, height: float
) -> None:
    from matplotlib import colormaps

    greys = colormaps["gray"].resampled(GREYS)
    sizes = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    volumes = {s: prepared.image[SEQUENCES.index(s)].astype(np.float32) for s in shown}
    brain = np.logical_or.reduce([v != 0 for v in volumes.values()])
    drawn = np.zeros(brain.shape, bool) if prepared.mask is None else prepared.mask > 0
    at = _middle(drawn if drawn.any() else brain)
    behind = _template(prepared, at)
    for row, sequence in enumerate(shown):
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
            _outline(axes, behind[name], TEMPLATE)
            inside = ndimage.binary_fill_holes(_cut(brain, name, at))
            _outline(axes, inside, BRAIN)
            _outline(axes, _cut(drawn, name, at), EXPERT)
            if row:
                _edges(axes, _cut(volumes[shown[0]], name, at), inside, (tall, wide))
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


def _outline(axes: Axes, mask: Flags, colour: str) -> None:
    """The mask's border, closed also where it touches the edge of the plane."""
    if not mask.any():
        return
    rows, columns = (np.arange(-1, side + 1) for side in mask.shape)
    axes.contour(
        columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=0.8
    )


def _edges(axes: Axes, plane: Grey, inside: Flags, size: tuple[float, float]) -> None:
    """The reference's steepest borders, blurred 1.5 mm (Marr and Hildreth 1980): whatever the
    contrast, tissue borders of both sequences lie on each other where the two are registered."""
    core = ndimage.distance_transform_edt(inside, size) > EDGES_MM
    if not core.any():
        return
    sigma = [1.5 / s for s in size]
    steep = ndimage.gaussian_gradient_magnitude(plane, sigma)
    bend = ndimage.gaussian_laplace(plane, sigma)
    hidden = ~core | (steep < np.quantile(steep[core], EDGE_SHARE))
    if hidden.all() or not (bend[core].min() < 0 < bend[core].max()):
        return
    axes.contour(np.ma.masked_where(hidden, bend), levels=[0], colors=[EDGES], linewidths=0.9)


@contextmanager
def _plain_drawing() -> Iterator[None]:
    """matplotlib's own style, whatever the reader's; letters that its font lacks show as boxes."""
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
