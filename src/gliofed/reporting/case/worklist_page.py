"""The list of predicted cases, for a radiologist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gliofed.reporting.case.tables import NO_VOLUME, UNDETERMINED
from gliofed.reporting.html.document import render_page
from gliofed.reporting.html.formatting import NOT_AVAILABLE, count, number, short_title

SCRIPTS: Final = ("reporting/case/worklist.js",)


@dataclass(frozen=True)
class WorklistMarker:
    """One marker in short. likeliest: its class; None with its probability where that is not
    finite. determined: whether the class is stated; None without a calibration.
    trained: whether the model is trained for it."""

    marker: str
    likeliest: str | None
    probability: float | None
    determined: bool | None
    trained: bool = True


@dataclass(frozen=True)
class WorklistCase:
    """One predicted case. name: of its folder, which is part of the address of its page.

    volume_ml: None where it is not finite. reason: why the integrated type is not determinable.
    missing: missing sequences. unused: scanned ones that the model was not trained with. quality:
    faults of the preparation. synthetic: the model was trained on synthetic phantoms.
    """

    name: str
    case: str
    written: str
    model: str
    model_id: str
    synthetic: bool
    integrated: str
    reason: str
    volume_ml: float | None
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    quality: tuple[str, ...]
    markers: tuple[WorklistMarker, ...]


@dataclass(frozen=True)
class DamagedCase:
    """A case whose prediction cannot be read. fault: the reason and the cure."""

    name: str
    fault: str


@dataclass(frozen=True)
class Worklist:
    """cases, damaged: by name; both empty before the first prediction."""

    cases: tuple[WorklistCase, ...]
    damaged: tuple[DamagedCase, ...]


@dataclass(frozen=True)
class MarkerChip:
    """Text for one marker. mark: determined or not; empty without a calibration."""

    text: str
    mark: str


def render_worklist(content: Worklist) -> str:
    """The page as one HTML text, all names escaped; its links lead to `/cases/NAME`."""
    return render_page(
        "reporting/case/worklist.html.j2",
        scripts=SCRIPTS,
        styles=("reporting/case/worklist.css",),
        study="Predicted cases",
        synthetic=any(c.synthetic for c in content.cases),
        cases=[
            (c, case_address(c.name), _volume(c), tuple(map(marker_chip, c.markers)))
            for c in content.cases
        ],
        damaged=content.damaged,
        counted=count(len(content.cases), "case"),
    )


def case_address(name: str) -> str:
    """Path of the page of a case."""
    return f"/cases/{quote(name, safe='')}"


def marker_chip(line: WorklistMarker) -> MarkerChip:
    """ "IDH mutant: 0.83", "undetermined"."""
    title = short_title(line.marker, "")
    marks = {True: "determined", False: UNDETERMINED, None: ""}
    if not line.trained:
        return MarkerChip(f"{title}: not trained", "")
    if line.likeliest is None:
        return MarkerChip(f"{title}: {NOT_AVAILABLE}", marks[line.determined])
    return MarkerChip(
        f"{title} {line.likeliest}: {number(line.probability, 2)}", marks[line.determined]
    )


def _volume(line: WorklistCase) -> str:
    if {"T2", "FLAIR"} <= {*line.missing, *line.unused}:
        return NO_VOLUME
    return NOT_AVAILABLE if line.volume_ml is None else f"{number(line.volume_ml, 1)} ml"
