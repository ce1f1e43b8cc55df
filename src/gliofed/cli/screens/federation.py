"""The state of a federation's run, and its audit logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from gliofed.deployment.lead import page_path
from gliofed.deployment.run_status import FINAL_STATES, RunStatus
from gliofed.federated.label_counts import not_trained_text
from gliofed.federated.noise.spent import spent_text
from gliofed.markers import BY_ID
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.reporting.study.calibration_tables import scaling_lines
from gliofed.runtime.printable import printable
from gliofed.types import RoundPoint

if TYPE_CHECKING:
    from gliofed import LogLine, LogVerdict

_SHOWN: Final = 12
"""The newest rounds that a table has."""
_WATCH_SECONDS: Final = 1.0


@dataclass
class StatusLines:
    """Prints the path of the page of a run, then its state whenever it has changed, and each
    warning once."""

    kit: Path
    lines: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)

    def show(self, status: RunStatus) -> None:
        """Print the line of this state, unless it was the last one printed."""
        line = status_line(status)
        if not self.lines:
            typer.echo(page_line(self.kit))
        if not self.lines or self.lines[-1] != line:
            self.lines.append(line)
            typer.echo(line)
        for warning in status.warnings:
            if warning not in self.warned:
                self.warned.append(warning)
                typer.secho(f"warning: {warning}", fg="yellow")


def page_line(kit: Path) -> str:
    """The line with the path of the page of the newest run of a kit."""
    return f"page: {page_path(kit)}"


def show_status(status: RunStatus) -> None:
    """Print the tables of a run."""
    Console().print(status_table(status))


def watch_status(read: Callable[[], RunStatus]) -> None:
    """Show the tables of a run until it has ended, updated each second."""
    status = read()
    with Live(status_table(status), auto_refresh=False) as live:
        while status.state not in FINAL_STATES:
            time.sleep(_WATCH_SECONDS)
            status = read()
            live.update(status_table(status), refresh=True)


def status_line(now: RunStatus) -> str:
    """The state of a run in one line."""
    text = f"{now.study}: {now.state}"
    if not now.model:
        text += f", {now.done} of {now.rounds or '?'} rounds"
    if now.points:
        last = now.points[-1]
        text += f"; the last took {last.seconds / last.rounds:.1f} s, {_sites(last)}"
    if now.state != "waiting":  # whose reason names them
        text += "".join(f"; {site}: {why}" for site, why in now.left_out.items())
    return f"{text}; {now.why}" if now.why else text


def status_table(now: RunStatus) -> Group:
    """The newest rounds of a run, then the table of its test where there is one."""
    rounds = Table(title=status_line(now), title_justify="left")
    for name in ("up to round", "s a round", "MB up", "loss", "Dice", "sites"):
        rounds.add_column(name, justify="left" if name == "sites" else "right")
    for point in now.points[-_SHOWN:]:
        rounds.add_row(
            str(point.round + 1),
            f"{point.seconds / point.rounds:.1f}",
            f"{point.bytes_up / point.rounds / 1e6:.1f}",
            f"{sum(point.losses.values()):.3f}" if point.losses else "",
            "" if point.dice is None else f"{point.dice:.3f}",
            _sites(point),
        )
    parts: list[Table | str] = [rounds]
    remarks = [f"not connected: {', '.join(now.missing)}"] if now.missing else []
    remarks += [f"withdrawn: {', '.join(now.withdrawn)}"] if now.withdrawn else []
    remarks += [f"without the model: {why}" for why in now.undelivered.values()]
    remarks += [f"warning: {warning}" for warning in now.warnings]
    remarks += [text] if (text := _without_markers(now)) else []
    remarks += [f"epsilon so far: {spent_text(now.spent)}"] if now.spent else []
    remarks += [f"the page could not be drawn: {now.page}"] if now.page else []
    rounds.caption = "; ".join(remarks) or None
    parts += now.overlap_lines()
    if now.rows:
        parts.append(_scores(now))
    if now.fits:
        parts.append(_fits(now))
    if now.fusion:
        parts.append("; ".join((f"Age and sex: {now.fusion}", *now.unfused.values())))
    return Group(*parts, RESEARCH_USE_ONLY)


def _without_markers(now: RunStatus) -> str:
    """A line on markers without figures; empty without one."""
    if not now.model:
        return not_trained_text(now.untrained)
    names = ", ".join(BY_ID[m].title for m in now.untrained)
    return f"the model was not trained for {names}" if names else ""


def _sites(point: RoundPoint) -> str:
    seconds: Mapping[str, float] = point.answered
    text = ", ".join(f"{site} {s:.1f} s" for site, s in seconds.items())
    text += f"; scaled down: {', '.join(point.bounded)}" if point.bounded else ""
    return f"{text}; without {', '.join(point.refused)}" if point.refused else text


def _fits(now: RunStatus) -> Table:
    used = "all tested cases" if now.model else "the calibration set of the training sites"
    fits = Table(title=f"Calibration, on {used}", title_justify="left")
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
    pooled = [r for r in now.rows if r.site == "all"]
    hidden = sum(r.value is None for r in pooled)
    for r in (r for r in pooled if r.value is not None):
        interval = "" if r.low is None else f" ({r.low:.3f} to {r.high:.3f})"
        scores.add_row(r.role, r.task, r.metric, str(r.n), f"{r.value:.3f}{interval}")
    notes = [
        *now.failures.values(),
        *([f"{hidden} scores hidden or not available"] if hidden else []),
    ]
    scores.caption = "; ".join(notes)
    return scores


def verdict_lines(log: Path, verdict: LogVerdict) -> Iterator[str]:
    """The result of checking an audit log."""
    if verdict.fault is not None:
        yield f"{log}: line {verdict.fault.line}: {verdict.fault.kind}: {verdict.fault.text}"
        return
    head = verdict.head
    yield f"{log}: {head.number} lines, all unchanged; the last has hash {head.hash}"
    if verdict.anchors:
        yield f"{verdict.anchors} heads in the log of the other party agree with it"
    if verdict.torn:
        yield (
            f"{verdict.torn} bytes after it are part of a line whose writer was stopped; "
            "gliofed moves them to another file at its next start"
        )


def log_line(line: LogLine) -> str:
    """A line of an audit log for a terminal, unprintable characters replaced."""
    fields = "  ".join(f"{key}={value}" for key, value in line.fields.items())
    text = f"{line.n:>6}  {line.at}  {line.who}  {line.event}  {fields}".rstrip()
    return printable(text)
