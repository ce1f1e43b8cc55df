"""The status page of a run, `page.html`, written by the lead and by the server."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gliofed.deployment.model_card import MODEL
from gliofed.deployment.run_status import RunStatus, State
from gliofed.errors import GliofedError
from gliofed.federated.noise.spent import noise_lines
from gliofed.reporting.federation.content import FederationContent, SiteStatus, Standing
from gliofed.reporting.federation.page import write_federation_page
from gliofed.study import Study
from gliofed.version import __version__

PAGE: Final = "page.html"
MIN_SECONDS: Final = 10.0
"""Minimum time between two pages of the same state."""
_TIME_SHARE: Final = 0.05
"""Maximum share of its time that a process spends on pages of the same state."""
_DRAWING_ERRORS: Final = (OSError, ValueError, ArithmeticError, RuntimeError, GliofedError)
"""Errors of a full or locked disk, and of matplotlib for a figure that cannot be drawn."""
_RESUME: Final = "committed rounds are kept, and gliofed start resumes after the last one"
_HINTS: Final[Mapping[State, str]] = {
    "waiting": "Training resumes when enough sites are connected. Committed rounds are kept.",
    "training": "In each round sites train and the server merges their updates.",
    "testing": "Training is done. Each site tests the model and returns sums only.",
    "calibrating": "The test is done. The probabilities are calibrated on the held-out cases of "
    "training sites, which return sums only.",
    "completed": f"Training and test are done. The model is in the folder {MODEL} of this run, in "
    "the server's kit.",
    "below quorum": f"Too few sites returned an update that could be merged: {_RESUME}.",
    "stopped": f"The run was ended by command: {_RESUME}.",
    "failed": f"The run cannot continue: {_RESUME}.",
}

_VALIDATION_HINTS: Final[Mapping[State, str]] = {
    **_HINTS,
    "waiting": "The test begins when enough sites are connected.",
    "testing": "Each site receives the model, tests it and returns sums only. Nothing is trained.",
    "calibrating": "The test is done. The probabilities are compared with the outcomes at all "
    "sites, which return sums only.",
    "completed": "The test is done. The model was not changed.",
    **dict.fromkeys(
        ("below quorum", "stopped", "failed"),
        "The test is not complete; gliofed federation validate resumes it.",
    ),
}
"""Of a study that validates a given model."""


class FederationPage:
    """The page in the folder of one run.

    A page takes about a second to draw, and a round may take less. It is drawn when the state
    changes and at the end. Between, it is drawn at most every ten seconds, and for at most a
    twentieth of the time. Changes in between appear on the next page.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._path, self._study = folder / PAGE, study
        self._drawn: tuple[RunStatus, frozenset[str]] | None = None
        self._due = 0.0
        self._error = ""

    def show(self, status: RunStatus, withdrawn: Collection[str], now: bool = False) -> str:
        """Draw the page if it is due. Returns the error of the last drawing, or an empty text.

        If a page cannot be drawn, the old one stays and the run continues. now: draw without
        regard to the time.
        """
        state = dataclasses.replace(status, page=""), frozenset(withdrawn)
        started = time.monotonic()
        unchanged = self._drawn is not None and self._drawn[0].state == status.state
        if state == self._drawn or (unchanged and not now and started < self._due):
            return self._error
        try:
            write_federation_page(run_content(*state, self._study), self._path)
            self._error = ""
        except _DRAWING_ERRORS as error:
            self._error = f"{type(error).__name__}: {error}"
        ended = time.monotonic()
        self._drawn, self._due = state, ended + max(MIN_SECONDS, (ended - started) / _TIME_SHARE)
        return self._error


def run_content(status: RunStatus, withdrawn: Collection[str], study: Study) -> FederationContent:
    """The content of the page for the present status of a run of `study`."""
    grid = " x ".join(map(str, study.grid.spacing_mm))
    hints = _VALIDATION_HINTS if study.federation.validates else _HINTS
    return FederationContent(
        study=status.study,
        synthetic=study.data.synthetic,
        state=status.state,
        why=status.why,
        hint=hints[status.state],
        validates=bool(study.federation.validates),
        rounds=status.rounds,
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        stations=tuple(
            SiteStatus(site, site in study.data.train, _standing(site, status, withdrawn))
            for site in (*study.data.train, *study.data.external)
        ),
        points=status.points,
        rows=status.rows,
        failures=status.failures,
        left_out=status.left_out,
        warnings=status.warnings,
        fits=status.fits,
        uncalibrated=status.uncalibrated,
        facts=(
            ("gliofed", __version__),
            ("run", status.run),
            ("study", f"{status.study}, digest {status.digest}"),
            *_method_facts(study),
            *(("noise", line) for line in noise_lines(study, status.spent)),
            *(("shared patients", line) for line in status.overlap_lines()),
            *([("fusion", status.fusion)] if status.fusion else []),
            *(("not in the fusion", why) for why in status.unfused.values()),
            ("network", study.net.preset),
            ("grid", f"{grid} mm, patch {study.grid.patch}"),
        ),
    )


def _method_facts(study: Study) -> tuple[tuple[str, str], ...]:
    train, federation = study.optimisation, study.federation
    if federation.validates:
        return (
            ("model", federation.validates),
            ("training", "none"),
            ("deadline", f"{federation.deadline:g} s for each request"),
        )
    return (
        ("training", f"{train.epochs} epochs, batch {train.batch}, AdamW {train.lr:g}"),
        *([("started from", study.init.summary)] if study.init else []),
        ("method", federation.summary),
        (
            "quorum",
            f"{federation.quorum} updates a round, each within {federation.deadline:g} s",
        ),
    )


def _standing(site: str, status: RunStatus, withdrawn: Collection[str]) -> Standing:
    if site in withdrawn:
        return "withdrawn"
    if site in status.left_out:
        return "left out"
    if site in status.missing:
        return "missing"
    known = site in status.sites or bool(status.missing)  # `missing` lists every absent site
    return "connected" if known else "not requested"
