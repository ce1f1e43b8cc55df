"""One page over the figures of a data set: what needs a look first, and no network asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gliofed import __version__
from gliofed.io.files import write_text
from gliofed.io.store import unwritable
from gliofed.prepare.figure import measured
from gliofed.prepare.workers import CaseAccount, Fate

ORDER: Final[tuple[Fate, ...]] = ("failed", "set aside", "prepared", "kept")


@dataclass(frozen=True)
class Card:
    """One case in words. figure: beside the page, empty where there is none."""

    case: str
    fate: Fate
    reasons: tuple[str, ...]
    measures: str
    figure: str


def write_index(accounts: Sequence[CaseAccount], name: str, path: Path) -> None:
    """Write the page beside the figures. Raises UnwritableError."""
    try:
        write_text(path, render(accounts, name))
    except OSError as error:
        raise unwritable(path.parent, error) from None


def render(accounts: Sequence[CaseAccount], name: str) -> str:
    """The page as one text, failed and set-aside cases first, all names escaped."""
    from jinja2 import Environment, StrictUndefined

    rooms = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("gliofed.prepare").joinpath("index.html.j2").read_text(encoding="utf-8")
    ordered = sorted(accounts, key=lambda a: ORDER.index(a.fate))
    text: str = rooms.from_string(template).render(
        version=__version__,
        name=name,
        counts=[(fate, sum(a.fate == fate for a in accounts)) for fate in ORDER],
        cards=[_card(a) for a in ordered],
    )
    return text


def _card(account: CaseAccount) -> Card:
    return Card(
        case=str(account.case),
        fate=account.fate,
        reasons=account.reasons,
        measures=measured(account.measures) if account.measures else "",
        figure=quote(account.figure.name) if account.figure else "",
    )
