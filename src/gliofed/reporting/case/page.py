"""Renders the page of one case, for a radiologist, as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.calibration.cns5 import NOT_DETERMINABLE
from gliofed.reporting.case import tables
from gliofed.reporting.case.content import CaseContent
from gliofed.reporting.case.slices import display_centre, occlusion_picture, sequence_slices
from gliofed.reporting.case.volumes import (
    COLOURS,
    LINE,
    ViewerVolumes,
    in_ras,
    start_position,
    viewer_volumes,
)
from gliofed.reporting.html.document import render_page
from gliofed.runtime.files import write_text
from gliofed.runtime.templates import packaged_text

VIEWER: Final = "reporting/html/vendor/niivue.umd.js"
SCRIPTS: Final = (VIEWER, "reporting/case/case.js")
LICENCES: Final = "reporting/html/vendor/LICENSES.txt"


def write_case_page(content: CaseContent, path: Path) -> None:
    """Write the page to `path` in one step. Equal contents give equal bytes.

    Raises DataError where the case's arrays do not fit each other or are not finite.
    """
    write_text(path, render_case(content))


def render_case(content: CaseContent) -> str:
    """The page as one HTML text: styles, scripts, volumes and slices inside, all names escaped."""
    case = in_ras(content)
    at = display_centre(case)
    inside = viewer_volumes(case, at)
    return render_page(
        "reporting/case/case.html.j2",
        scripts=SCRIPTS,
        styles=("reporting/case/case.css",),
        study=case.case,
        synthetic=case.source.synthetic,
        content=case,
        determined=case.integrated.answer != NOT_DETERMINABLE,
        outcomes=tables.outcome_bars(case.integrated),
        type_sentence=tables.type_sentence(case.integrated),
        volume=tables.volume_text(case),
        volume_stated=tables.volume_text(case) != tables.NO_VOLUME,
        voxel=tables.voxel_text(case),
        panels=tuple(map(tables.marker_panel, case.markers)),
        uncalibrated=tables.uncalibrated(case.markers),
        inside=inside,
        config=_viewer_config(case, inside),
        slices=sequence_slices(case, at),
        whys=[(tables.occlusion_table(w), occlusion_picture(case, w)) for w in case.occlusions],
        licences=packaged_text(LICENCES),
    )


def _viewer_config(content: CaseContent, inside: ViewerVolumes) -> Mapping[str, object]:
    """The settings of the script for the embedded volumes."""
    return {
        "images": [{"id": v.id, "title": v.title} for v in inside.images],
        "outline": inside.outline.id if inside.outline else "",
        "line": LINE,
        "overlays": [
            {
                "id": o.volume.id,
                "low": o.low,
                "high": o.high,
                "parts": [
                    {"colours": c, "meaning": m}
                    for c, m in ((o.colours, o.meaning), (o.below, o.meaning_below))
                    if c
                ],
            }
            for o in inside.overlays
        ],
        "colours": COLOURS,
        "start": start_position(content, inside),
        "shape": inside.shape,
    }
