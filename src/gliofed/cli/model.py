"""`gliofed model`: a model's folder, looked at, brought up to date, and handed out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

model = typer.Typer(
    no_args_is_help=True, help="A model's folder: shown, brought up to date, handed out."
)


@model.command("show")
def show(folder: Annotated[Path, typer.Argument(help="The model's folder.")]) -> None:
    """Check every file of a model and say what it is."""
    import gliofed
    from gliofed.cli.verbs import plain_ends
    from gliofed.notice import RESEARCH_USE_ONLY

    with plain_ends():
        found = gliofed.read_model(folder)
        own = found.recipe
        rows = (
            ("model", found.id),
            ("study", f"{own.name}, digest {own.study}"),
            ("training", f"run {own.run}, {own.rounds} rounds, gliofed {own.gliofed}"),
            ("network", own.net.preset + (f", stem {own.net.stem}" if own.net.stem else "")),
            ("voxels", " x ".join(str(s) for s in own.grid.spacing_mm) + " mm"),
            ("markers", ", ".join(f"{m.marker} ({', '.join(m.classes)})" for m in own.markers)),
            ("calibration", _fitted(found.calibrations)),
            ("patients", "drawn, for demonstration" if own.synthetic else "real"),
        )
        for name, text in rows:
            typer.echo(f"{name:12} {text}")
        typer.echo(RESEARCH_USE_ONLY)


def _fitted(calibrations: Mapping[int, object]) -> str:
    if not calibrations:
        return "none: probabilities as they fall"
    most = ", ".join(str(n) for n in sorted(calibrations))
    return f"for cases that lack up to this many sequences: {most}"


@model.command("upgrade")
def upgrade(
    old: Annotated[Path, typer.Argument(help="The old model.safetensors of a federation's run.")],
    study: Annotated[Path, typer.Option(help="The study that it was trained by (TOML).")],
    out: Annotated[Path, typer.Option(help="Folder of the model to write.")],
) -> None:
    """Bring a model of an older format up to date; the old file stays."""
    import gliofed
    from gliofed.cli.verbs import plain_ends

    with plain_ends():
        typer.echo(f"wrote {out}: model {gliofed.upgrade_model(old, study, out)}")


@model.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="The model's folder.")],
    to: Annotated[str, typer.Option(help="onnx (one file) or monai (a bundle's folder).")],
    out: Annotated[Path, typer.Option(help="File or folder to write; not there yet.")],
) -> None:
    """Hand a model out as ONNX or as a MONAI bundle, checked against it before it is kept."""
    import gliofed
    from gliofed.cli.verbs import plain_ends
    from gliofed.notice import RESEARCH_USE_ONLY

    with plain_ends():
        done = gliofed.export_model(folder, to, out)
        typer.echo(f"wrote {done.path}: {done.title} of model {done.model}")
        typer.echo(f"its answers differ from the model's by {done.difference:.1e} at most (logits)")
        typer.echo(RESEARCH_USE_ONLY)
