"""The application: the list of predicted cases, as a page and as JSON, and each case's page."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from gliofed.errors import DataError, GliofedError
from gliofed.inference.answer_files import ANSWER, READ_ERRORS, read_answer
from gliofed.inference.worklist import case_folders, read_worklist
from gliofed.reporting.case import page, worklist_page
from gliofed.reporting.case.worklist_page import Worklist
from gliofed.reporting.html.document import content_security_policy
from gliofed.runtime.printable import LONGEST, printable
from gliofed.version import __version__
from gliofed.viewer.access import plain_page

REFUSALS: Final[dict[int | str, dict[str, str]]] = {
    401: {"description": "Without the token."},
    405: {"description": "Another method than GET and HEAD."},
    421: {"description": "A host that is not this server's."},
}
"""Responses of the guard, documented for every route."""
CACHED_PAGES: Final = 4
"""Number of case pages in memory, about 13 MB each."""


def make_app(answers: Path, store: Path | None) -> FastAPI:
    """The application for the cases below `answers`, which are read at each request.

    store: folder of the prepared cases. It has no access control;
    `gliofed.viewer.access.AccessGuard` wraps it.
    """
    app = FastAPI(
        title="gliofed view",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={**REFUSALS},
    )
    pages = CasePages(store)

    @app.get("/", response_class=HTMLResponse)
    def worklist() -> Response:
        """The list."""
        return _page(worklist_page.render_worklist(read_worklist(answers)), worklist_page.SCRIPTS)

    @app.get("/cases.json")
    def cases() -> Worklist:
        """The list, as plain values."""
        return read_worklist(answers)

    @app.get(
        "/cases/{name}",
        response_class=HTMLResponse,
        responses={404: {"description": "No such case."}},
    )
    def case(name: str) -> Response:
        """The page of one case. name: of its folder; it is looked up and not used as a path."""
        folder = case_folders(answers).get(name)
        if folder is None:
            raise HTTPException(404)
        try:
            return _page(pages.of(folder), page.SCRIPTS)
        except GliofedError as error:
            return plain_page(404, "This case cannot be shown", printable(str(error), LONGEST))

    @app.exception_handler(HTTPException)
    def refused(request: Request, error: HTTPException) -> Response:
        """Response for an unknown address."""
        return plain_page(error.status_code, "Not there", "No such page. The list of cases is at /")

    return app


class CasePages:
    """A cache of the last `CACHED_PAGES` case pages; one is rendered at a time."""

    def __init__(self, store: Path | None) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.made = lru_cache(CACHED_PAGES)(self._make)

    def of(self, folder: Path) -> bytes:
        """The page of the present prediction.

        Raises DataError for a damaged prediction, StoreError for a damaged prepared case.
        """
        with self._lock:
            return self.made(folder, _stamp(folder))

    def _make(self, folder: Path, stamp: tuple[int, ...]) -> bytes:
        try:
            return page.render_case(read_answer(folder, self._store)).encode()
        except READ_ERRORS as error:
            raise DataError(f"{folder}: is damaged ({error}); predict the case again") from None


def _stamp(folder: Path) -> tuple[int, ...]:
    """A version that changes with each prediction, which is written to a new file."""
    try:
        status = (folder / ANSWER).stat()
    except OSError as error:
        raise DataError(f"{folder}: its prediction was removed ({error.strerror})") from None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _page(text: str | bytes, scripts: tuple[str, ...]) -> HTMLResponse:
    """The page with its own policy as a header, and one rule that only a header can have."""
    csp = f"{content_security_policy(scripts)}; frame-ancestors 'none'"
    return HTMLResponse(text, headers={"content-security-policy": csp})
