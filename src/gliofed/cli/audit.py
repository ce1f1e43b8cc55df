"""`gliofed audit`: whether a log is as it was written, and what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gliofed.runtime.printable import printable

if TYPE_CHECKING:  # they are imported when a verb runs, so that --help stays light
    from gliofed import LogLine, LogVerdict

audit = typer.Typer(no_args_is_help=True, help="Check and read the audit logs of a federation.")


@audit.command()
def verify(
    log: Annotated[Path, typer.Argument(help="The audit log.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="The other side's log: the server's for a site, a site's for the server."
        ),
    ] = None,
    site: Annotated[
        str, typer.Option(help="The name under which --against noted this log's heads.")
    ] = "",
) -> None:
    """Check that no line of a log was changed, dropped, added or moved since it was written.

    Ends with status 0 where it is sound, 1 where it is not.
    """
    import gliofed
    from gliofed.cli.verbs import plain_ends

    if (against is None) != (not site):
        raise typer.BadParameter("--against and --site go together")
    with plain_ends():
        verdict = gliofed.verify_log(log, against, site)
        typer.echo("\n".join(_told(log, verdict)))
    sys.exit(0 if verdict.sound else 1)


@audit.command()
def show(log: Annotated[Path, typer.Argument(help="The audit log.")]) -> None:
    """Print a log, a line each, as far as it is sound."""
    import gliofed
    from gliofed.cli.verbs import plain_ends

    with plain_ends():
        for line in gliofed.read_log(log):
            typer.echo(_row(line))


def _told(log: Path, verdict: LogVerdict) -> list[str]:
    if verdict.fault is not None:
        fault = verdict.fault
        return [f"{log}: line {fault.line}: {fault.kind}: {fault.text}"]
    head = verdict.head
    out = [f"{log}: {head.number} lines, all sound; the last has hash {head.hash}"]
    if verdict.anchors:
        out.append(f"{verdict.anchors} heads noted by the other side are in it")
    if verdict.torn:
        out.append(
            f"{verdict.torn} bytes after it are the beginning of a line whose writer was stopped; "
            "gliofed moves them aside at its next start"
        )
    return out


def _row(line: LogLine) -> str:
    """The line for a terminal; whatever a log holds, nothing in it is obeyed."""
    fields = "  ".join(f"{k}={v}" for k, v in line.fields.items())
    text = f"{line.n:>6}  {line.at}  {line.who}  {line.event}  {fields}".rstrip()
    return printable(text)
