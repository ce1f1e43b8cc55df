"""Slices of a case as pictures, for print and for browsers without the viewer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.markers import BY_ID
from gliofed.reporting.case.content import CaseContent, Occlusion
from gliofed.reporting.case.volumes import (
    COLOURS,
    LEAST_SHARE,
    LINE,
    ORDER,
    brain,
    brain_regions,
    greys,
    outline,
)
from gliofed.reporting.html.formatting import count
from gliofed.reporting.plots.planes import PLANES, aspect, largest_section, slice_of
from gliofed.reporting.plots.segmentation_slices import (
    DOTS_PER_INCH,
    orientation_text,
    slice_figure,
)
from gliofed.reporting.plots.style import Picture, plot_style, raster_picture

BLEND: Final = 0.6
"""Opacity of the colours over the grey image."""


@dataclass(frozen=True)
class SequenceSlices:
    """One sequence's axial, coronal and sagittal slice."""

    sequence: str
    planes: tuple[tuple[str, Picture], ...]


def display_centre(content: CaseContent) -> tuple[int, int, int]:
    """The voxel where the segmentation is largest in each direction, else the brain."""
    drawn = outline(content)
    return largest_section(drawn if drawn.any() else brain(content))


def sequence_slices(content: CaseContent, at: tuple[int, int, int]) -> tuple[SequenceSlices, ...]:
    """Slices of every present sequence through the voxel `at`, with the border of the
    segmentation."""
    inside = brain(content)
    out = []
    for sequence in ORDER:
        if sequence not in content.images:
            continue
        grey = _shades(content.images[sequence], inside)
        planes = tuple((n, _slice(content, sequence.value, n, grey, at)) for n in PLANES)
        out.append(SequenceSlices(sequence.value, planes))
    return tuple(out)


def occlusion_picture(content: CaseContent, why: Occlusion) -> Picture | None:
    """The axial slice with the greatest change of the probability, in colours over the first
    present sequence; None if `brain_regions` gives None."""
    within = brain_regions(content, why)
    if within is None:
        return None
    most = float(np.abs(within).max())
    x, y, z = np.unravel_index(int(np.abs(within).argmax()), within.shape)
    at = (int(x), int(y), int(z))
    sequence = next(s for s in ORDER if s in content.images)
    grey = slice_of(_shades(content.images[sequence], brain(content)), "axial", at)
    image = np.repeat(grey[..., None], 3, axis=2)
    change = slice_of(within, "axial", at) / most
    for colours, share in (("falls", change), ("rises", -change)):
        visible = share >= LEAST_SHARE
        image[visible] = (1 - BLEND) * image[visible] + BLEND * _coloured(colours, share[visible])
    drawn = slice_of(outline(content), "axial", at)
    words = (
        f"{content.case}, axial {sequence.value} slice, {orientation_text('axial')}: change of the "
        f"probability of {BY_ID[why.marker].title}: {why.class_name} by occlusion, "
        f"by up to {most:.2f}."
    )
    with plot_style():
        figure = slice_figure(
            "axial", image, aspect(content.affine, "axial"), ((drawn, LINE, "solid"),)
        )
        return raster_picture(figure, words, DOTS_PER_INCH)


def _slice(
    content: CaseContent,
    sequence: str,
    name: str,
    grey: NDArray[np.float32],
    at: tuple[int, int, int],
) -> Picture:
    line = slice_of(outline(content), name, at)
    inside = count(int(line.sum()), "pixel") if line.any() else "nothing"
    words = (
        f"{content.case}, {name} {sequence} slice, {orientation_text(name)}: {inside} segmented."
    )
    with plot_style():
        figure = slice_figure(
            name, slice_of(grey, name, at), aspect(content.affine, name), ((line, LINE, "solid"),)
        )
        return raster_picture(figure, words, DOTS_PER_INCH)


def _shades(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    return (greys(image, inside) / 255).astype(np.float32)


def _coloured(colours: str, share: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) of 0 to 1 to (n, 3) red, green, blue."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS[colours]]) / 255
    places = np.linspace(0, 1, len(stops))
    rgb = np.stack([np.interp(share, places, stops[:, i]) for i in range(3)], axis=-1)
    return rgb.astype(np.float32)
