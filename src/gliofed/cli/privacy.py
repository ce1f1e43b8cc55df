"""Commands that measure what a finished run reveals about its patients."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

import gliofed
from gliofed.cli.terminal import TerminalProgress, one_line_errors
from gliofed.notice import RESEARCH_USE_ONLY

privacy = typer.Typer(
    no_args_is_help=True, help="What a finished run reveals about its patients, measured."
)


class AttackKind(enum.StrEnum):
    """Attacks of the audit."""

    MEMBERSHIP = "membership"
    LABELS = "labels"
    INVERSION = "inversion"


@privacy.callback()
def _group() -> None:
    """Keep `audit` a command of its own."""


@privacy.command()
def audit(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    store: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases [default: <run>/store].")
    ] = None,
    attack: Annotated[
        list[AttackKind] | None,
        typer.Option(help="Make this attack only; may be repeated [default: all]."),
    ] = None,
    inversions: Annotated[
        int, typer.Option(min=1, help="Patients whose image is searched from their gradient.")
    ] = 4,
    iterations: Annotated[int, typer.Option(min=1, help="Steps of each such search.")] = 300,
    crop: Annotated[
        int, typer.Option(min=8, help="Largest side of an image that is searched, in voxels.")
    ] = 16,
) -> None:
    """Attack a run's models and its sites' gradients: who was trained on, labels, images.

    Writes privacy.csv and privacy.md into the run's folder, and a section of its model card.
    """
    from gliofed.cli.screens.privacy import show_audit

    with one_line_errors(after="no figure was written"):
        with TerminalProgress() as progress:
            kinds = attack or list(AttackKind)
            options = gliofed.AuditOptions(
                attacks=tuple(k.value for k in kinds),
                store=store,
                inversions=inversions,
                iterations=iterations,
                crop=crop,
            )
            found = gliofed.audit_privacy(run, options, progress)
        show_audit(found)
        typer.echo(RESEARCH_USE_ONLY)
        typer.echo(f"All figures: {found.page}, {found.table}")
