"""The verbs of a federation between hospitals."""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

import gliofed
from gliofed.cli.show import TerminalProgress
from gliofed.cli.verbs import plain_ends
from gliofed.deployment.lead import page_path
from gliofed.deployment.run_status import FINAL_STATES, RunStatus
from gliofed.deployment.site_data import SiteDataPaths
from gliofed.deployment.supervisor import RetryLimits
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.study.calibration_tables import scaling_lines
from gliofed.runtime.processes import end_with_starter
from gliofed.types import RoundPoint

AGAIN: Final = "the same command goes on"
_SHOWN: Final = 12
"""The newest rounds that a table has."""


@dataclass(frozen=True)
class JoinOptions:
    """What `gliofed join` was given."""

    kit: Path
    data: Path
    store: Path
    format: str
    study: Path | None
    approval: Path | None
    who: str
    yes: bool


def serve(kit: Path) -> None:
    """`gliofed serve`."""
    end_with_starter()
    with plain_ends(after=AGAIN):
        typer.echo("serving; Ctrl-C ends it")
        gliofed.serve(kit)


def join(asked: JoinOptions) -> None:
    """`gliofed join`."""
    end_with_starter()
    with plain_ends(after=AGAIN):
        data = SiteDataPaths(asked.data, asked.store, asked.format)
        with TerminalProgress() as terminal:
            proposal = gliofed.look(asked.kit, data, asked.study, terminal)
        typer.echo("What runs here:")
        typer.echo("\n".join(f"  {line}" for line in proposal.runs))
        typer.echo("What leaves this hospital:")
        typer.echo("\n".join(f"  {line}" for line in proposal.leaves))
        who = asked.who or getpass.getuser()
        given = proposal.agreed or asked.approval is not None or asked.yes
        if not given and not typer.confirm(f"Approve this as {who}?"):
            typer.echo("nothing was approved, and nothing is sent")
            raise typer.Exit(1)
        typer.echo(f"taking part as {proposal.kit.name}; Ctrl-C leaves")
        gliofed.join(proposal, who, asked.approval, lambda line: typer.echo(line, err=True))


def start(study: Path, kit: Path, segment: int) -> None:
    """`gliofed start`."""
    end_with_starter()
    with plain_ends(after="the segment under way ends by itself; the same command goes on"):
        said: list[str] = []

        def told(now: RunStatus) -> None:
            line = one_line(now)
            if not said:
                typer.echo(f"its page: {page_path(kit)}")
            if not said or said[-1] != line:
                said.append(line)
                typer.echo(line)

        end = gliofed.start(study, kit, told, RetryLimits(rounds=segment))
        Console().print(table(end))
        if end.state not in ("completed", "stopped"):
            typer.secho(f"{end.state}: {end.why}", fg="red", err=True)
            raise typer.Exit(1)


def status(kit: Path, watch: bool) -> None:
    """`gliofed status`."""
    with plain_ends(after="the run goes on"):
        now = gliofed.status(kit)
        if not watch:
            Console().print(table(now))
            typer.echo(f"its page: {page_path(kit)}")
            return
        with Live(table(now), auto_refresh=False) as live:
            while now.state not in FINAL_STATES:
                time.sleep(1)
                now = gliofed.status(kit)
                live.update(table(now), refresh=True)


def stop(kit: Path) -> None:
    """`gliofed stop`."""
    with plain_ends():
        now = gliofed.stop(kit)
        typer.echo(f"{now.study} stops after its present round, {len(now.points) + 1}")


def withdraw(site: str, kit: Path) -> None:
    """`gliofed withdraw`."""
    with plain_ends():
        now = gliofed.withdraw(kit, site)
        typer.echo(
            f"{site} is asked no more from the next round on; the model keeps what it learnt "
            f"there in rounds up to {len(now.points)}"
        )
        if now.state == "completed":
            typer.echo("gliofed start writes the model's card on the server anew, without its name")


def try_out(out: Path) -> None:
    """`gliofed federation try`."""
    with plain_ends(after=AGAIN):
        with TerminalProgress() as terminal:
            end = gliofed.try_out(out, terminal.line, terminal)
        if end.state != "completed":
            raise typer.Exit(1)
        typer.echo(f"Kits, logs and audit logs of every party: {out}")


def one_line(now: RunStatus) -> str:
    """How a run stands, in a line."""
    text = f"{now.study}: {now.state}, {len(now.points)} of {now.rounds} rounds"
    if now.points:
        last = now.points[-1]
        text += f"; the last took {last.seconds:.1f} s, {_sites(last)}"
    return f"{text}; {now.why}" if now.why else text


def table(now: RunStatus) -> Group:
    """How a run stands: its newest rounds, then the test's table where there is one."""
    rounds = Table(title=one_line(now), title_justify="left")
    for name in ("round", "seconds", "MB up", "loss", "Dice", "sites"):
        rounds.add_column(name, justify="left" if name == "sites" else "right")
    for point in now.points[-_SHOWN:]:
        rounds.add_row(
            str(point.round + 1), f"{point.seconds:.1f}", f"{point.bytes_up / 1e6:.1f}",
            f"{sum(point.losses.values()):.3f}", "" if point.dice is None else f"{point.dice:.3f}",
            _sites(point),
        )  # fmt: skip
    parts = [rounds]
    remarks = [f"not connected: {', '.join(now.missing)}"] if now.missing else []
    remarks += [f"its page could not be drawn: {now.page}"] if now.page else []
    rounds.caption = "; ".join(remarks) or None
    if now.rows:
        parts.append(_scores(now))
    if now.fits:
        parts.append(_fits(now))
    return Group(*parts, RESEARCH_USE_ONLY)


def _sites(point: RoundPoint) -> str:
    seconds: Mapping[str, float] = point.answered
    text = ", ".join(f"{site} {s:.1f} s" for site, s in seconds.items())
    return f"{text}; without {', '.join(point.refused)}" if point.refused else text


def _fits(now: RunStatus) -> Table:
    fits = Table(title="Calibration, on cases that training sites kept back", title_justify="left")
    for name in ("marker", "cases", "slope", "intercepts", "note"):
        fits.add_column(name)
    for f in scaling_lines(now.fits):
        fits.add_row(f.marker, f.classes, f.slope, f.intercepts, f.note)
    fits.caption = "; ".join(now.uncalibrated.values()) or None
    return fits


def _scores(now: RunStatus) -> Table:
    scores = Table(title="Test, all sites of a role together (95 % interval)", title_justify="left")
    for name in ("role", "task", "metric", "n", "value"):
        scores.add_column(name)
    whole = [r for r in now.rows if r.site == "all"]
    hidden = sum(r.value is None for r in whole)
    for r in (r for r in whole if r.value is not None):
        interval = "" if r.low is None else f" ({r.low:.3f} to {r.high:.3f})"
        scores.add_row(r.role, r.task, r.metric, str(r.n), f"{r.value:.3f}{interval}")
    notes = [
        *now.failures.values(),
        *([f"{hidden} figures hidden or not to be had"] if hidden else []),
    ]
    scores.caption = "; ".join(notes)
    return scores
