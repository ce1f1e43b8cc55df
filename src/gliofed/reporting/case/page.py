"""The page of one case, for a radiologist: one HTML file that asks nothing of any network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.calibration.cns5 import NOT_DETERMINABLE
from gliofed.reporting.case import wording
from gliofed.reporting.case.content import CaseContent
from gliofed.reporting.case.slices import centre, explained, slices
from gliofed.reporting.case.volumes import COLOURS, LINE, ViewerVolumes, in_ras, start, volumes
from gliofed.reporting.html.document import fill
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
    at = centre(case)
    inside = volumes(case, at)
    return fill(
        "reporting/case/case.html.j2",
        scripts=SCRIPTS,
        styles=("reporting/case/case.css",),
        study=case.case,
        synthetic=case.source.synthetic,
        content=case,
        determined=case.integrated.answer != NOT_DETERMINABLE,
        outcomes=wording.outcomes(case.integrated),
        volume=wording.volume(case),
        panels=tuple(map(wording.panel, case.markers)),
        uncalibrated=wording.uncalibrated(case.markers),
        inside=inside,
        told=_told(case, inside),
        slices=slices(case, at),
        whys=[(wording.falls(w), explained(case, w)) for w in case.whys],
        licences=packaged_text(LICENCES),
    )


def _told(content: CaseContent, inside: ViewerVolumes) -> Mapping[str, object]:
    """What the script is told of the volumes beside it."""
    return {
        "images": [{"id": v.id, "title": v.title} for v in inside.images],
        "outline": inside.outline.id if inside.outline else "",
        "line": LINE,
        "overlays": [
            {"id": o.volume.id, "low": o.low, "high": o.high,
             "parts": [{"colours": c, "meaning": m}
                       for c, m in ((o.colours, o.meaning), (o.below, o.meaning_below)) if c]}
            for o in inside.overlays
        ],
        "colours": COLOURS,
        "start": start(content, inside),
        "shape": inside.shape,
    }  # fmt: skip
