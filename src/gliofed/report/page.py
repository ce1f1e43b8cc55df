"""The results page: one HTML file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from gliofed import __version__
from gliofed.io.files import write_text
from gliofed.markers import MARKERS, Marker
from gliofed.report.chances import marker_pictures
from gliofed.report.content import Content
from gliofed.report.drawing import Picture
from gliofed.report.forest import forest_pictures
from gliofed.report.outlines import outlined
from gliofed.report.tables import (
    HEADLINE_MODELS,
    cohort_of,
    costs,
    external_summary,
    filters,
    full_table,
    headline,
    refusals,
)
from gliofed.report.training import training_pictures
from gliofed.report.wording import model_title

NOTES_AT_ONCE = 12


@dataclass(frozen=True)
class MarkerFigures:
    """One marker's row of figures; pictures are empty where no external label is known."""

    marker: Marker
    pictures: tuple[Picture, ...]


def write_page(content: Content, path: Path) -> None:
    """Write the page to `path` in one step: a reader never meets half of it.

    Equal contents give equal bytes. Raises DataError where a mosaic's masks do not fit its image.
    """
    write_text(path, render(content))


def render(content: Content) -> str:
    """The page as one HTML text: styles, script and figures inside, all names escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    rooms = Environment(
        loader=PackageLoader("gliofed.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _source(rooms.loader, rooms, "page.js")
