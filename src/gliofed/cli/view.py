"""`gliofed view`: answered cases in a browser, served to this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def view(
    answers: Annotated[Path, typer.Argument(help="The --out of `gliofed predict`.")],
    store: Annotated[
        Path | None, typer.Option(help="Where the prepared cases are now [default: as then].")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = 0,
    host: Annotated[str, typer.Option(help="A loopback address.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--open", help="Open the browser.")] = False,
) -> None:
    """Show answered cases as a worklist in the browser, on this machine alone, until Ctrl-C.

    Research use only. Not a medical device.
    """
    import gliofed
    from gliofed.cli.verbs import plain_ends
    from gliofed.notice import RESEARCH_USE_ONLY

    def ready(address: str) -> None:
        typer.echo(f"open {address}\nWhoever has this address sees the cases. Ctrl-C ends it.")
        typer.echo(RESEARCH_USE_ONLY)
        if browser:
            import webbrowser

            webbrowser.open(address)

    with plain_ends():
        gliofed.view(answers, store, host, port, ready)
