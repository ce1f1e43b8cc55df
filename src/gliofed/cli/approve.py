"""`gliofed approve`: what a study does, a question, and an approval; or an approver's key."""

from __future__ import annotations

import getpass
from pathlib import Path

import typer

import gliofed
from gliofed.cli.verbs import plain_ends


def approve(
    study: Path | None, out: Path | None, who: str, key: Path | None, policy: Path | None,
    new_key: Path | None, yes: bool,
) -> None:  # fmt: skip
    """Make a key, or show the study, ask, and write the approval."""
    if (study is None) == (new_key is None):
        raise typer.BadParameter("give a study file to approve, or --new-key, and not both")
    with plain_ends(after="nothing was approved"):
        if new_key is not None:
            _make(new_key)
        elif study is not None:
            _approve(
                study, out or Path("approval.json"), who or getpass.getuser(), key, policy, yes
            )


def _make(path: Path) -> None:
    public = gliofed.new_key(path)
    typer.echo(
        f"wrote {path}: keep it to yourself, it says yes for you\n"
        f"for approvers in a site's policy.toml: {public}"
    )


def _approve(
    study: Path, out: Path, who: str, key: Path | None, policy: Path | None, yes: bool
) -> None:
    runs, leaves = gliofed.consent(study, policy)
    rules = f"the policy {policy}" if policy else "the default policy; a site's own may differ"
    typer.echo("What runs at the site:")
    typer.echo("\n".join(f"  {line}" for line in runs))
    typer.echo(f"What leaves it, under {rules}:")
    typer.echo("\n".join(f"  {line}" for line in leaves))
    if not yes and not typer.confirm(f"Approve this as {who}?"):
        typer.echo("nothing was approved")
        raise typer.Exit(1)
    approval = gliofed.approve(study, who, out, key, policy)
    target = out / f"{approval.study}.json" if out.is_dir() else out
    signed = "signed" if approval.signature else "not signed"
    typer.echo(f"wrote {target} ({signed})")
