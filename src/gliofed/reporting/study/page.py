"""Renders the results page of a study as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from gliofed.reporting.html.document import SCRIPT, render_page
from gliofed.reporting.html.formatting import is_personal_model
from gliofed.reporting.plots.segmentation_slices import segmentation_figure
from gliofed.reporting.plots.training_curves import training_pictures
from gliofed.reporting.study import tables
from gliofed.reporting.study.content import StudyContent
from gliofed.reporting.study.report_context import make_report_context
from gliofed.runtime.files import write_text

NOTES_AT_ONCE = 12


ABOUT = (
    "hospitals train together, images stay",
    "all images in one place",
    "each hospital on its own",
)


def write_study_page(content: StudyContent, path: Path) -> None:
    """Write the page to `path` in one step, never partially.

    Equal contents give equal bytes. Raises DataError if an example's masks do not fit its image.
    """
    write_text(path, render_study_page(content))


def render_study_page(content: StudyContent) -> str:
    """The page as one HTML text: styles, script and figures inside, all names escaped."""
    columns, cohort = tables.cohort_of(content)
    return render_page(
        "reporting/study/page.html.j2",
        scripts=(SCRIPT,),
        study=content.study,
        synthetic=content.synthetic,
        report=make_report_context(content.scored, tables.HEADLINE_MODELS, ABOUT),
        external=tables.external_summary(content.scored.results, content.scored.rows),
        notes=content.notes[:NOTES_AT_ONCE],
        more_notes=content.notes[NOTES_AT_ONCE:],
        examples=[segmentation_figure(m) for m in content.examples],
        training=training_pictures([c for c in content.curves if not is_personal_model(c.model)]),
        costs=tables.costs(content.curves),
        refusals=tables.refusals(content.curves),
        columns=columns,
        cohort=cohort,
        excluded=content.excluded,
        checklists=content.checklists,
        facts=content.facts,
    )
