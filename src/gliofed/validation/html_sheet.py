"""Writes findings as JSON, and as one HTML page with thumbnails, which uses no network."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.runtime.files import write_text
from gliofed.runtime.printable import LONGEST, printable
from gliofed.runtime.templates import packaged_text, render_html
from gliofed.validation.check import CaseThumbnail, CheckResult
from gliofed.validation.codes import CODES, Code, Severity
from gliofed.validation.findings import Finding
from gliofed.version import __version__

FINDINGS_PER_CARD: Final = 6
"""Kinds of findings repeated below a case's thumbnail; the table has all findings."""


@dataclass(frozen=True)
class SheetCard:
    """One case: its thumbnail, if any, and its errors and warnings.

    findings: the first of each code, and the number of further ones.
    """

    case: str
    image: str
    width: int
    height: int
    alt: str
    columns: tuple[str, ...]
    findings: tuple[tuple[Finding, int], ...]
    worst: str


def write_json(result: CheckResult, path: Path) -> None:
    """The findings in the order of the table, and how many of each severity."""
    value = {
        "gliofed": __version__,
        "path": str(result.path),
        "cases": result.cases,
        "tables": result.tables,
        **{f"{s.value}s": result.count(s) for s in Severity},
        "findings": [f.row() for f in result.findings],
    }
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_sheet(result: CheckResult, path: Path) -> None:
    """Write the page; it loads nothing from elsewhere, and all names are escaped."""
    write_text(path, render_sheet(result))


def render_sheet(result: CheckResult) -> str:
    """The page as text."""
    from markupsafe import Markup

    return render_html(
        "validation/sheet.html.j2",
        version=__version__,
        style=Markup(packaged_text("validation/sheet.css")),  # noqa: S704  (our own file, no names in it)
        name=printable(result.path.name or str(result.path), LONGEST),
        cases=result.cases,
        tables=result.tables,
        counts=[(s.value, result.count(s)) for s in Severity],
        kinds=_kinds(result.findings),
        findings=result.findings,
        cards=_cards(result),
    )


def _kinds(findings: Sequence[Finding]) -> list[tuple[Code, int]]:
    counts = Counter(f.code for f in findings)
    order = list(Severity)
    kinds = [(code, counts[code.id]) for code in CODES if code.id in counts]
    return sorted(kinds, key=lambda pair: order.index(pair[0].severity))


def _cards(result: CheckResult) -> list[SheetCard]:
    """Cases with errors first, then those with warnings."""
    by_case: dict[str, list[Finding]] = {}
    for f in result.findings:
        if f.severity is not Severity.NOTE:
            by_case.setdefault(f.case, []).append(f)
    cards = [_card(p, by_case.get(printable(p.case, LONGEST), [])) for p in result.thumbnails]
    order = (*(s.value for s in Severity), "")
    return sorted(cards, key=lambda card: order.index(card.worst))


def _card(thumbnail: CaseThumbnail, findings: Sequence[Finding]) -> SheetCard:
    by_code = {
        code: [f for f in findings if f.code == code]
        for code in dict.fromkeys(f.code for f in findings)
    }
    first_of_each = [(fs[0], len(fs) - 1) for fs in by_code.values()]
    names = tuple(s.value for s in thumbnail.sequences)
    width, height = struct.unpack(">2I", thumbnail.png[16:24]) if thumbnail.png else (0, 0)
    source = base64.b64encode(thumbnail.png).decode("ascii")
    mask_text = "with a mask" if thumbnail.has_mask else "without a mask"
    name = printable(thumbnail.case, LONGEST)
    return SheetCard(
        case=name,
        image=f"data:image/png;base64,{source}" if thumbnail.png else "",
        width=width,
        height=height,
        alt=f"{name}: three planes of {', '.join(names)}, {mask_text}",
        columns=names,
        findings=tuple(first_of_each[:FINDINGS_PER_CARD]),
        worst=findings[0].severity.value if findings else "",
    )
