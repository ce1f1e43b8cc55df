"""`gliofed predict`: a line a case."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import gliofed
from gliofed import api
from gliofed.cli.show import Terminal
from gliofed.cli.verbs import plain_ends
from gliofed.infer.batch import CaseFate

if TYPE_CHECKING:  # the libraries of DICOM are an extra
    from gliofed.io.dicom.web import Pacs


def predict(
    model: Path, scans: str, out: Path, store: Path | None, overwrite: bool, pacs: Pacs | None
) -> None:
    """0: every case was answered; 1: some were refused, or a known error; 2: all were refused."""
    with plain_ends(after="cases that are whole stay, and the same command answers the others"):
        with Terminal() as terminal:
            fates = api.predict(model, scans, out, store, overwrite, pacs, terminal)
        for fate in fates:
            typer.echo(_line(fate))
        refused = sum(f.fate == "refused" for f in fates)
        typer.echo(f"{len(fates) - refused} of {len(fates)} cases answered, in {out}")
        typer.echo(gliofed.CAUTION)
    sys.exit(2 if refused == len(fates) else min(refused, 1))


def _line(fate: CaseFate) -> str:
    rest = "".join(f"\n  {reason}" for reason in fate.reasons)
    return f"{fate.case}: {fate.fate}, {fate.seconds:.1f} s{rest}"
