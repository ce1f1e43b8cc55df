"""`gliofed radiomics`: features of outlines, and regressions on them beside the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliofed.cli.extra import extra
from gliofed.notice import RESEARCH_USE_ONLY

radiomics = typer.Typer(
    no_args_is_help=True, help="Features of outlines, and regressions on them beside the network."
)


@radiomics.command("extract")
def measure(
    study: Annotated[Path, typer.Argument(help="The study file (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder for features.csv and what belongs to it.")],
    store: Annotated[
        Path | None,
        typer.Option(help="Folder of prepared cases [default: runs/<study file's name>/store]."),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Cases side by side [default: one a core].")
    ] = None,
) -> None:
    """Measure shape, intensities and textures of every case of a study within its outline.

    Interrupt it when you like: what was measured is not measured again.
    """
    import gliofed
    from gliofed.cli.show import TerminalProgress
    from gliofed.cli.verbs import plain_ends
    from gliofed.runtime.processes import cores

    with plain_ends(after="the same command goes on from there"):
        with extra("radiomics"), TerminalProgress() as terminal:
            found = gliofed.extract_features(
                study, out, store, processes=processes or cores(), progress=terminal
            )
        for left in found.left_out:
            typer.echo(f"left out: {left.reason}", err=True)
        typer.echo(f"wrote {found.table}: {found.cases} cases, {len(found.left_out)} left out")


@radiomics.command("test")
def leave_out(
    tables: Annotated[list[Path], typer.Argument(help="Tables of features.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions, models, coefficients.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="For the published tables of TCGA: Table S1 of Ceccarelli et al. 2016."),
    ] = None,
) -> None:
    """Train on features by sums, leaving out each hospital in turn, and predict its cases.

    Research use only. Not a medical device.
    """
    import gliofed
    from gliofed.cli.show import TerminalProgress
    from gliofed.cli.verbs import plain_ends

    with plain_ends():
        with TerminalProgress() as terminal:
            path = gliofed.try_features(tables, out, labels, terminal)
        typer.echo(f"wrote {path}\n{RESEARCH_USE_ONLY}")
