"""`gliofed predict`: a line a case."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import gliofed
from gliofed.cli.show import TerminalProgress
from gliofed.cli.verbs import plain_ends
from gliofed.inference.batch import CaseStatus
from gliofed.notice import RESEARCH_USE_ONLY

if TYPE_CHECKING:  # the libraries of DICOM are an extra
    from gliofed.dicom.dicomweb import DicomWebServer


@dataclass(frozen=True)
class PredictOptions:
    """As `api.predict` takes it. page: whether each case's page is written too."""

    out: Path
    store: Path | None
    overwrite: bool
    explain: bool
    page: bool


def predict(model: Path, scans: str, asked: PredictOptions, pacs: DicomWebServer | None) -> None:
    """0: every case was answered; 1: some were refused, or a known error; 2: all were refused."""
    with plain_ends(after="cases that are whole stay, and the same command answers the others"):
        with TerminalProgress() as terminal:
            statuses = gliofed.predict(
                model, scans, asked.out, asked.store, asked.overwrite, asked.explain, pacs, terminal
            )
            answered = [s.folder for s in statuses if s.status != "refused"]
            if asked.page and answered:
                gliofed.report(asked.out, asked.store, terminal)
        for status in statuses:
            typer.echo(_line(status))
        typer.echo(f"{len(answered)} of {len(statuses)} cases answered, in {asked.out}")
        typer.echo(RESEARCH_USE_ONLY)
    sys.exit(0 if len(answered) == len(statuses) else 1 if answered else 2)


def _line(status: CaseStatus) -> str:
    rest = "".join(f"\n  {reason}" for reason in status.reasons)
    return f"{status.case}: {status.status}, {status.seconds:.1f} s{rest}"
