"""The page of one case, for a radiologist: one HTML file that asks nothing of any network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.calibrate.cns5 import NOT_DETERMINABLE
from gliofed.io.files import write_text
from gliofed.report import case_words
from gliofed.report.case_content import CaseContent
from gliofed.report.case_slices import centre, explained, slices
from gliofed.report.case_volumes import COLOURS, LINE, Volumes, in_ras, start, volumes
from gliofed.report.frame import fill, part

VIEWER: Final = "vendor/niivue.umd.js"
SCRIPTS: Final = (VIEWER, "case.js")
LICENCES: Final = "vendor/LICENSES.txt"


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
        "case.html.j2",
        scripts=SCRIPTS,
        styles=("case.css",),
        study=case.case,
        synthetic=case.source.synthetic,
        content=case,
        determined=case.integrated.answer != NOT_DETERMINABLE,
        outcomes=case_words.outcomes(case.integrated),
        volume=case_words.volume(case),
        panels=tuple(map(case_words.panel, case.markers)),
        uncalibrated=case_words.uncalibrated(case.markers),
        inside=inside,
        told=_told(case, inside),
        slices=slices(case, at),
        whys=[(case_words.falls(w), explained(case, w)) for w in case.whys],
        licences=part(LICENCES),
    )


def _told(content: CaseContent, inside: Volumes) -> Mapping[str, object]:
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
