"""All predicted cases in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gliofed.errors import StudyError


def view(
    answers: Path,
    store: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the cases below `answers`, as `predict` wrote them, to this machine until interrupted.

    store: where their prepared cases are now, if not where they were. port: 0 takes a free one.
    ready: hears the address to open, whose token lets in whoever has it. Raises DataError as
    `gliofed.viewer.server.serve` says, StudyError where the packages of a web server are missing.
    """
    try:
        from gliofed.viewer.server import serve
    except ImportError as error:
        raise StudyError(
            f"a web server needs packages that are not there ({error}); install gliofed[view]"
        ) from error
    serve(answers, store, host, port, ready)
