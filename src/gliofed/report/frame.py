"""What every page has: one HTML file, complete in itself, under a policy that lets nothing in."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from gliofed import CAUTION, __version__


def fill(template: str, script: str = "", **values: object) -> str:
    """A page as one HTML text: styles, script and figures inside, all names escaped.

    template: a file of this package that extends `frame.html.j2`. script: another one, the only
    script that the page may run; empty for none.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    rooms = Environment(
        loader=PackageLoader("gliofed", "report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    code = _part(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return rooms.get_template(template).render(
        version=__version__,
        caution=CAUTION,
        style=Markup(_part("page.css")),  # noqa: S704  (our own files, no names in them)
        script=Markup(code),  # noqa: S704  (as above)
        scripts=Markup(f"'sha256-{digest}'" if script else "'none'"),  # noqa: S704  (as above)
        **values,
    )


def _part(name: str) -> str:
    """One of the pages' own files, as it lies in the package."""
    return files("gliofed.report").joinpath(name).read_text(encoding="utf-8")
