"""The one Jinja environment of every page, model card and service file.

Templates, styles and scripts are named by their path within the package, for example
`reporting/study/page.html.j2`. Every template can use `research_use_only`, the notice of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from gliofed.notice import RESEARCH_USE_ONLY

if TYPE_CHECKING:
    from jinja2 import Environment


def render_html(template: str, **values: object) -> str:
    """Fill an HTML template; every value is escaped unless it is `markupsafe.Markup`.

    Raises jinja2.UndefinedError where the template uses a value that is not given.
    """
    return _environment(html=True).get_template(template).render(**values)


def render_text(template: str, **values: object) -> str:
    """Fill a Markdown, YAML or unit file template. Nothing is escaped but by the filter `plain`."""
    return _environment(html=False).get_template(template).render(**values)


def text_macros(template: str, **values: object) -> Mapping[str, Callable[..., str]]:
    """The macros of a text template by name; each renders with `values` when it is called."""
    module = _environment(html=False).get_template(template).make_module(values)
    return {name: macro for name, macro in vars(module).items() if callable(macro)}


def plain(text: object) -> str:
    """Text on one line that Markdown shows as it is; in text templates the filter `plain`."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>|#&~])", r"\\\1", line)


def packaged_text(name: str) -> str:
    """A style sheet, script or licence text of the package."""
    return files("gliofed").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment(html: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gliofed", ""),
        autoescape=html,  # noqa: S701 (False for text that is no HTML)
        undefined=StrictUndefined,
        keep_trailing_newline=not html,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["research_use_only"] = RESEARCH_USE_ONLY
    if not html:
        environment.filters["plain"] = plain
    return environment
