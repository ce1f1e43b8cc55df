"""`gliofed`: the command. Its commands are in four groups, one module each."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gliofed.cli import cases, data, federation, studies
from gliofed.notice import RESEARCH_USE_ONLY
from gliofed.version import __version__


class GroupedCommands(TyperGroup):
    """Lists the commands by group, in the order in which they were registered."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a group: each command with the first line of its help."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                group = getattr(command, "rich_help_panel", None) or "Commands"
                groups.setdefault(group, []).append((name, command.get_short_help_str(100)))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


app = typer.Typer(
    cls=GroupedCommands,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hospitals train one 3D glioma network together; no image leaves the building.\n\n"
    + RESEARCH_USE_ONLY,
)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


for group in (data, studies, cases, federation):
    group.add_to(app)


if __name__ == "__main__":
    app()
