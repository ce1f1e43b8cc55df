"""`gliofed correct`: a person's mask becomes the label of its case."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import gliofed
    from gliofed.types import Sequence


def correct(
    mask: Annotated[Path, typer.Argument(help="The corrected mask: NIfTI or DICOM-SEG.")],
    hospital: Annotated[Path, typer.Option(help="The hospital's BIDS folder.")],
    subject: Annotated[str, typer.Option(help="The case: sub-X or X.")],
    author: Annotated[str, typer.Option(help="Who corrected it.")],
    date: Annotated[str, typer.Option(help="When, as 2026-02-28 [default: today].")] = "",
    case: Annotated[
        Path | None,
        typer.Option(help="The case's folder in the store: the mask is in the network's space."),
    ] = None,
    sequence: Annotated[
        str, typer.Option(help="The scan that it lies on [default: found by its grid].")
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(help="A value, or segment, that is tumour; may be repeated."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="The exported file that was corrected, if still there.")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="An empty mask is meant: there is no tumour.")
    ] = False,
) -> None:
    """Take a corrected mask back as the label of its case; the earlier label is kept.

    Research use only. Not a medical device.
    """
    import gliofed
    from gliofed.cli.verbs import plain_ends
    from gliofed.notice import RESEARCH_USE_ONLY

    correction = gliofed.Correction(
        mask, author, _day(date), case, _sequence(sequence), tuple(label or ()), export, empty
    )
    with plain_ends(after="the same command completes it; until then the earlier label counts"):
        typer.echo(_line(gliofed.correct(correction, hospital, subject)))
        typer.echo(RESEARCH_USE_ONLY)


def _line(done: gliofed.CorrectedLabel) -> str:
    was = "" if done.volume_before_ml is None else f" (was {done.volume_before_ml:.2f} ml)"
    kept = "" if done.earlier is None else f"; the earlier label is {done.earlier}"
    beyond = f", {done.outside_ml:.2f} ml more lie outside this scan" if done.outside_ml else ""
    return f"{done.path}: on {done.sequence.value}, {done.volume_ml:.2f} ml{was}{beyond}{kept}"


def _day(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text) if text else datetime.date.today()
    except ValueError:
        raise typer.BadParameter(f"--date {text!r}: expected a day as 2026-02-28") from None


def _sequence(name: str) -> Sequence | None:
    from gliofed.types import Sequence

    try:
        return Sequence(name.upper()) if name else None
    except ValueError:
        known = ", ".join(Sequence)
        raise typer.BadParameter(f"--sequence: {name!r} is none of {known}") from None
