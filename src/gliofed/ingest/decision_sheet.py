"""The page that shows a slice of every series that a person has to decide; it stays at the site.

Texts are those of the screen: pseudonyms, and descriptions without words that name a patient.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from gliofed.dicom.geometry import in_order
from gliofed.dicom.slice_picture import slice_picture
from gliofed.errors import DataError
from gliofed.ingest.decisions import SKIP
from gliofed.ingest.plan import SeriesPlan, SeriesStatus
from gliofed.ingest.private_tables import (
    acquisition_text,
    identifying_words,
    series_reason,
    series_rows,
)
from gliofed.ingest.pseudonyms import PseudonymKey
from gliofed.ingest.redaction import redact
from gliofed.ingest.subject import PatientOutcome
from gliofed.runtime.files import write_private
from gliofed.runtime.png import encode_png
from gliofed.runtime.progress import Progress, ProgressCounter
from gliofed.runtime.templates import packaged_text, render_html
from gliofed.version import __version__


@dataclass(frozen=True)
class SheetCard:
    """One series. image: a data address, empty where it has no picture. series: keyed name."""

    patient: str
    study: int
    number: str
    series: str
    description: str
    facts: str
    choices: str
    reason: str
    faulty: bool
    image: str = ""
    width: int = 0
    height: int = 0


def write_sheet(
    path: Path,
    outcomes: Iterable[PatientOutcome],
    key: PseudonymKey,
    work: Path,
    progress: Progress,
) -> bool:
    """Write the page; without an open series, remove it and return False.

    work: a private folder for temporary files, emptied before and after each series.
    """
    waiting = list(_waiting(outcomes))
    if not waiting:
        path.unlink(missing_ok=True)
        return False
    progress.stage("drawing a slice of each series to decide")
    counter = ProgressCounter(progress, len(waiting))
    cards = []
    for outcome, study, series_plan in waiting:
        cards.append(_card(outcome, study, series_plan, key, work))
        counter.step("series")
    style = Markup(packaged_text("validation/sheet.css"))  # noqa: S704  (our own file)
    page = render_html(
        "ingest/decision_sheet.html.j2", version=__version__, style=style, cards=cards
    )
    write_private(path, page)
    return True


def _waiting(
    outcomes: Iterable[PatientOutcome],
) -> Iterator[tuple[PatientOutcome, int, SeriesPlan]]:
    for outcome in outcomes:
        for study, v in series_rows(outcome):
            if v.status in (SeriesStatus.UNDECIDED, SeriesStatus.FAULTY):
                yield outcome, study, v


def _card(
    outcome: PatientOutcome, study: int, series_plan: SeriesPlan, key: PseudonymKey, work: Path
) -> SheetCard:
    head, words = series_plan.series.first, identifying_words(outcome)
    faulty = series_plan.status is SeriesStatus.FAULTY
    names = [SKIP] if faulty else [*(s.value for s in series_plan.guess.candidates), SKIP]
    texts = head.description, head.protocol, head.scanner.manufacturer, head.scanner.model
    facts = [redact(t, words) for t in acquisition_text(head).split(", ")]
    card = SheetCard(
        patient=f"sub-{outcome.plan.pseudonym}",
        study=study,
        number="?" if head.number is None else str(head.number),
        series=key.series(head.series),
        description=", ".join(dict.fromkeys(filter(None, (redact(t, words) for t in texts)))),
        facts=", ".join([f"{len(series_plan.series.headers)} slices", *facts]),
        choices=", ".join(names),
        reason=series_reason(series_plan),
        faulty=faulty,
    )
    return _with_picture(card, series_plan, work)


def _with_picture(card: SheetCard, series_plan: SeriesPlan, work: Path) -> SheetCard:
    """The middle slice; none where a slice has no place, may show a name, or is not readable."""
    headers = series_plan.series.headers
    if any(h.plane is None or h.burned_in for h in headers):
        return card
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    try:
        picture = slice_picture(in_order(headers)[len(headers) // 2], work)
    except DataError:
        return card
    finally:
        shutil.rmtree(work, ignore_errors=True)
    data = base64.b64encode(encode_png(picture)).decode("ascii")
    rows, columns = picture.shape
    return replace(card, image=f"data:image/png;base64,{data}", width=columns, height=rows)
