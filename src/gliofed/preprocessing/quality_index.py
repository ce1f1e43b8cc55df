"""One page over the figures of a data set: what needs a look first, and no network asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from gliofed.data.store import unwritable_error
from gliofed.preprocessing.quality_figure import format_measures
from gliofed.preprocessing.workers import CasePreparation, PreparationStatus
from gliofed.runtime.files import write_text
from gliofed.runtime.templates import render_html
from gliofed.version import __version__

ORDER: Final[tuple[PreparationStatus, ...]] = ("failed", "set aside", "prepared", "kept")


@dataclass(frozen=True)
class QualityCard:
    """One case in words. figure: beside the page, empty where there is none."""

    case: str
    fate: PreparationStatus
    reasons: tuple[str, ...]
    measures: str
    figure: str


def write_index(accounts: Sequence[CasePreparation], name: str, path: Path) -> None:
    """Write the page beside the figures. Raises UnwritableError."""
    try:
        write_text(path, render_index(accounts, name))
    except OSError as error:
        raise unwritable_error(path.parent, error) from None


def render_index(accounts: Sequence[CasePreparation], name: str) -> str:
    """The page as one text, failed and set-aside cases first, all names escaped."""
    ordered = sorted(accounts, key=lambda a: ORDER.index(a.fate))
    return render_html(
        "preprocessing/quality_index.html.j2",
        version=__version__,
        name=name,
        counts=[(fate, sum(a.fate == fate for a in accounts)) for fate in ORDER],
        cards=[_card(a) for a in ordered],
    )


def _card(account: CasePreparation) -> QualityCard:
    return QualityCard(
        case=str(account.case),
        fate=account.fate,
        reasons=account.reasons,
        measures=format_measures(account.measures) if account.measures else "",
        figure=quote(account.figure.name) if account.figure else "",
    )
