"""`gliofed export`: an outline back on the scans, one line a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

import gliofed
from gliofed.cli.verbs import plain_ends
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.types import Sequence


def export(
    mask: Path | None,
    case: Path,
    out: Path,
    series: Iterable[str],
    choose: Iterable[str],
    image: Iterable[str],
    model: str,
    person: str,
    overwrite: bool,
) -> None:
    """Write, then say what was written."""
    folders, chosen = _pairs("--series", series), _pairs("--choose", choose)
    shown = [_sequence("--image", name) for name in image]
    if mask is None and (folders or not shown):
        raise typer.BadParameter("give a MASK, or --image with a sequence to draw on")
    if chosen.keys() - folders.keys():
        raise typer.BadParameter("--choose names a sequence that has no --series")
    sources = {s: gliofed.SeriesLocation(Path(p), chosen.get(s, "")) for s, p in folders.items()}
    with plain_ends(after="the same command with --overwrite writes all files anew"):
        for sequence in shown:
            path = gliofed.image(case, sequence, out, overwrite)
            typer.echo(f"{path}: {sequence.value} in the network's space")
        if mask is not None:
            for done in gliofed.export(mask, case, out, sources, model, person, overwrite):
                typer.echo(_line(done))
        typer.echo(RESEARCH_USE_ONLY)


def _line(done: gliofed.ExportedMask) -> str:
    if done.path is None:
        return f"{done.sequence.value}: nothing outlined, so no {done.kind} was written"
    nothing = "" if done.volume_ml else ", nothing outlined"
    beyond = f", {done.outside_ml:.2f} ml more lie outside this scan" if done.outside_ml else ""
    return f"{done.path}: {done.kind}, {done.volume_ml:.2f} ml{nothing}{beyond}"


def _pairs(option: str, texts: Iterable[str]) -> dict[Sequence, str]:
    found: dict[Sequence, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        sequence = _sequence(option, name)
        if not value:
            raise typer.BadParameter(f"{option} {text}: expected SEQUENCE=VALUE")
        if sequence in found:
            raise typer.BadParameter(f"{option}: {sequence.value} is given twice")
        found[sequence] = value
    return found


def _sequence(option: str, name: str) -> Sequence:
    try:
        return Sequence(name.upper())
    except ValueError:
        known = ", ".join(Sequence)
        raise typer.BadParameter(f"{option}: {name!r} is none of {known}") from None
