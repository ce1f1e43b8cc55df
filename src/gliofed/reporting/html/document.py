"""Renders an HTML page as one self-contained file with a strict content security policy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from gliofed.runtime.templates import packaged_text, render_html
from gliofed.version import __version__

STYLE = "reporting/html/page.css"
SCRIPT = "reporting/html/page.js"


def render_page(
    template: str, scripts: Sequence[str] = (), styles: Sequence[str] = (), **values: object
) -> str:
    """A page as one HTML text: styles, scripts and figures inside, all names escaped.

    template: a file of this package that extends `frame.html.j2`. scripts: the only scripts that
    the page may run, in this order. styles: further style sheets besides `page.css`.
    """
    from markupsafe import Markup

    code = [packaged_text(name) for name in scripts]
    style = "".join(packaged_text(name) for name in (STYLE, *styles))
    return render_html(
        template,
        version=__version__,
        style=Markup(style),  # noqa: S704  (our own files, no names in them)
        scripts=[Markup(c) for c in code],  # noqa: S704  (as above)
        policy=Markup(content_security_policy(scripts)),  # noqa: S704  (as above)
        **values,
    )


def content_security_policy(scripts: Sequence[str] = ()) -> str:
    """The content security policy of a page: these scripts, styles and pictures, all inline."""
    allowed = " ".join(_digest(packaged_text(name)) for name in scripts) or "'none'"
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )


def _digest(code: str) -> str:
    """The hash of a script in a page's policy."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
