"""Slices of a case as pictures: for print, and where there is no viewer."""

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
    greys,
    outline,
    regions,
)
from gliofed.reporting.html.wording import count
from gliofed.reporting.plots.planes import PLANES, aspect, cut, middle
from gliofed.reporting.plots.segmentation_slices import DOTS_PER_INCH, plane, turned
from gliofed.reporting.plots.style import Picture, dots, drawing

BLEND: Final = 0.6
"""Of a colour over the grey below it."""


@dataclass(frozen=True)
class SequenceSlices:
    """One sequence's axial, coronal and sagittal slice."""

    sequence: str
    planes: tuple[tuple[str, Picture], ...]


def centre(content: CaseContent) -> tuple[int, int, int]:
    """Where the outline is largest in each direction, else the brain."""
    drawn = outline(content)
    return middle(drawn if drawn.any() else brain(content))


def slices(content: CaseContent, at: tuple[int, int, int]) -> tuple[SequenceSlices, ...]:
    """Of every sequence that is there, through the voxel `at`, with the outline's line."""
    inside, drawn = brain(content), outline(content)
    out = []
    for sequence in ORDER:
        if sequence not in content.images:
            continue
        grey = _shades(content.images[sequence], inside)
        planes = tuple((n, _slice(content, sequence.value, n, grey, drawn, at)) for n in PLANES)
        out.append(SequenceSlices(sequence.value, planes))
    return tuple(out)


def explained(content: CaseContent, why: Occlusion) -> Picture | None:
    """The axial slice with the greatest change of the probability, in colours over the first
    sequence that is there; None as `regions` is."""
    within = regions(content, why)
    if within is None:
        return None
    most = float(np.abs(within).max())
    x, y, z = np.unravel_index(int(np.abs(within).argmax()), within.shape)
    at = (int(x), int(y), int(z))
    sequence = next(s for s in ORDER if s in content.images)
    grey = cut(_shades(content.images[sequence], brain(content)), "axial", at)
    image = np.repeat(grey[..., None], 3, axis=2)
    change = cut(within, "axial", at) / most
    for colours, share in (("falls", change), ("rises", -change)):
        there = share >= LEAST_SHARE
        image[there] = (1 - BLEND) * image[there] + BLEND * _coloured(colours, share[there])
    drawn = cut(outline(content), "axial", at)
    words = (
        f"{content.case}, axial {sequence.value} slice, {turned('axial')}: where hiding a region "
        f"changes the probability of {BY_ID[why.marker].title}: {why.of}, by up to {most:.2f}."
    )
    with drawing():
        figure = plane("axial", image, aspect(content.affine, "axial"), ((drawn, LINE, "solid"),))
        return dots(figure, words, DOTS_PER_INCH)


def _slice(
    content: CaseContent,
    sequence: str,
    name: str,
    grey: NDArray[np.float32],
    drawn: NDArray[np.bool_],
    at: tuple[int, int, int],
) -> Picture:
    line = cut(drawn, name, at)
    inside = count(int(line.sum()), "pixel") if line.any() else "nothing"
    words = f"{content.case}, {name} {sequence} slice, {turned(name)}: {inside} outlined."
    with drawing():
        figure = plane(
            name, cut(grey, name, at), aspect(content.affine, name), ((line, LINE, "solid"),)
        )
        return dots(figure, words, DOTS_PER_INCH)


def _shades(image: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    return (greys(image, inside) / 255).astype(np.float32)


def _coloured(colours: str, share: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) of 0 to 1 to (n, 3) red, green, blue."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLOURS[colours]]) / 255
    places = np.linspace(0, 1, len(stops))
    found = np.stack([np.interp(share, places, stops[:, i]) for i in range(3)], axis=-1)
    return found.astype(np.float32)
