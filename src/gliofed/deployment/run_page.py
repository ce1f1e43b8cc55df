"""The page of a run, `page.html`, beside its status: at the lead, and on the server."""

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
from gliofed.reporting.federation.content import FederationContent, SiteStatus, Standing
from gliofed.reporting.federation.page import write_federation_page
from gliofed.study import Study
from gliofed.version import __version__

PAGE: Final = "page.html"
MIN_SECONDS: Final = 10.0
"""The least time between two pages of one state."""
_SHARE: Final = 0.05
"""Of its time, the most that a process spends on pages of one state."""
_UNDRAWN: Final = (OSError, ValueError, ArithmeticError, RuntimeError, GliofedError)
"""A disk that is full or locked, and what matplotlib raises of figures that it cannot draw."""
_GOES_ON: Final = "the rounds made are kept, and gliofed start goes on from there"
_HINTS: Final[Mapping[State, str]] = {
    "waiting": "The run goes on by itself once enough sites are there; the rounds made are kept.",
    "training": "Sites train and the server merges, round by round; each round made is kept.",
    "testing": "The last round is made. Each site tests the model, and only sums come back.",
    "calibrating": "The model is tested. On the cases that training sites kept back its "
    "probabilities are calibrated, and only sums come back.",
    "completed": f"Trained and tested. The folder {MODEL} lies beside this run's rounds in the "
    "server's kit.",
    "below quorum": f"Too few sites gave an update that could be merged: {_GOES_ON}.",
    "stopped": f"Somebody ended it: {_GOES_ON}.",
    "failed": f"It cannot go on by itself: {_GOES_ON}.",
}


class FederationPage:
    """The page in one run's folder.

    A page takes about a second to draw, and a round may take less. So it is drawn when the state
    changes and at the end; else not more often than every ten seconds, nor for more than a
    twentieth of the time. What comes in between is on the next one.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._path, self._study = folder / PAGE, study
        self._drawn: tuple[RunStatus, frozenset[str]] | None = None
        self._due = 0.0
        self._fault = ""

    def show(self, status: RunStatus, withdrawn: Collection[str], now: bool = False) -> str:
        """Draw the page where it is time to; why the last try failed, empty where it did not.

        A page that cannot be drawn leaves the old one, and never ends a run. now: without regard
        to the time.
        """
        asked = dataclasses.replace(status, page=""), frozenset(withdrawn)
        started = time.monotonic()
        same = self._drawn is not None and self._drawn[0].state == status.state
        if asked == self._drawn or (same and not now and started < self._due):
            return self._fault
        try:
            write_federation_page(run_content(*asked, self._study), self._path)
            self._fault = ""
        except _UNDRAWN as error:
            self._fault = f"{type(error).__name__}: {error}"
        ended = time.monotonic()
        self._drawn, self._due = asked, ended + max(MIN_SECONDS, (ended - started) / _SHARE)
        return self._fault


def run_content(status: RunStatus, withdrawn: Collection[str], study: Study) -> FederationContent:
    """What the page shows of a run of `study` now."""
    train, grid = study.train, " x ".join(map(str, study.grid.spacing_mm))
    return FederationContent(
        study=status.study,
        synthetic=study.data.synthetic,
        state=status.state,
        why=status.why,
        hint=_HINTS[status.state],
        rounds=status.rounds,
        at=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        stations=tuple(
            SiteStatus(site, site in study.data.train, _standing(site, status, withdrawn))
            for site in (*study.data.train, *study.data.external)
        ),
        points=status.points,
        rows=status.rows,
        failures=status.failures,
        fits=status.fits,
        uncalibrated=status.uncalibrated,
        facts=(
            ("gliofed", __version__),
            ("run", status.run),
            ("study", f"{status.study}, digest {status.digest}"),
            (
                "training",
                f"{train.rounds} rounds x {train.local_epochs} local epochs, batch "
                f"{train.batch}, AdamW {train.lr:g}",
            ),
            (
                "strategy",
                f"{study.federation.strategy}, server learning rate {study.federation.server_lr:g}",
            ),
            (
                "quorum",
                f"{study.federation.quorum} updates a round, each within "
                f"{study.federation.deadline:g} s",
            ),
            ("network", study.net.preset),
            ("grid", f"{grid} mm, patch {study.grid.patch}"),
        ),
    )


def _standing(site: str, status: RunStatus, withdrawn: Collection[str]) -> Standing:
    if site in withdrawn:
        return "withdrawn"
    if site in status.missing:
        return "missing"
    known = site in status.sites or bool(status.missing)  # who is missing was asked, and not it
    return "connected" if known else "not requested"
