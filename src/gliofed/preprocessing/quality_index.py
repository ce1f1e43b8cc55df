"""The index page over the figures of a data set; it loads nothing from a network."""

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

ORDER: Final[tuple[PreparationStatus, ...]] = ("failed", "excluded", "prepared", "reused")


@dataclass(frozen=True)
class QualityCard:
    """One case of the page. figure: file name, empty where there is none."""

    case: str
    status: PreparationStatus
    reasons: tuple[str, ...]
    measures: str
    figure: str


def write_index(
    accounts: Sequence[CasePreparation], name: str, path: Path, unused: Sequence[str] = ()
) -> None:
    """Write the page next to the figures. unused: a line for each scan that
    is not used. Raises UnwritableError."""
    try:
        write_text(path, render_index(accounts, name, unused))
    except OSError as error:
        raise unwritable_error(path.parent, error) from None


def render_index(accounts: Sequence[CasePreparation], name: str, unused: Sequence[str] = ()) -> str:
    """The page as text: failed and excluded cases first, all names escaped."""
    ordered = sorted(accounts, key=lambda a: ORDER.index(a.status))
    return render_html(
        "preprocessing/quality_index.html.j2",
        version=__version__,
        name=name,
        counts=[(status, sum(a.status == status for a in accounts)) for status in ORDER],
        cards=[_card(a) for a in ordered],
        unused=unused,
    )


def _card(account: CasePreparation) -> QualityCard:
    return QualityCard(
        case=str(account.case),
        status=account.status,
        reasons=account.reasons,
        measures=format_measures(account.measures) if account.measures else "",
        figure=quote(account.figure.name) if account.figure else "",
    )
