"""Renders the page of any model's scored predictions: the parts of a study's page that apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.evaluation.by_case.score_table import MEDIAN_MODEL
from gliofed.evaluation.results import CaseResult
from gliofed.reporting.html.document import SCRIPT, render_page
from gliofed.reporting.html.formatting import count, is_single_site
from gliofed.reporting.plots.segmentation_slices import segmentation_figure
from gliofed.reporting.study.content import ScoredPredictions, SegmentationExample
from gliofed.reporting.study.report_context import make_report_context
from gliofed.reporting.study.tables import in_order
from gliofed.runtime.files import write_text

MOST_COLUMNS = 4
"""Columns of the first table; the figure below has all models."""


@dataclass(frozen=True)
class ScoresPageContent:
    """Everything on the page. title: of the page. facts: the origin of the predictions, as (name,
    value) rows. notes, examples, excluded: as of `StudyContent`."""

    title: str
    scored: ScoredPredictions
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    examples: tuple[SegmentationExample, ...] = ()
    excluded: tuple[tuple[str, str, str], ...] = ()


def write_scores_page(content: ScoresPageContent, path: Path) -> None:
    """Write the page to `path` in one step. Equal contents give equal bytes."""
    write_text(path, render_scores(content))


def render_scores(content: ScoresPageContent) -> str:
    """The page as one HTML text."""
    scored = content.scored
    every = in_order((r.model for r in scored.rows), scored.reference)
    single = [m for m in every if is_single_site(m) and m != scored.reference]
    several = [m for m in every if m not in single][:MOST_COLUMNS]
    models = (*several, MEDIAN_MODEL) if single else tuple(several)
    return render_page(
        "reporting/study/scores.html.j2",
        scripts=(SCRIPT,),
        study=content.title,
        synthetic=False,
        report=make_report_context(scored, models, [""] * len(models)),
        external=_external_summary(scored.results),
        facts=content.facts,
        notes=content.notes,
        examples=[segmentation_figure(e) for e in content.examples],
        excluded=content.excluded,
    )


def _external_summary(results: Sequence[CaseResult]) -> str:
    """The cases of the first table; empty without an external one."""
    outside = [r for r in results if r.role == "external"]
    if not outside:
        return ""
    cases = len({(r.site, r.case) for r in outside})
    sites = sorted({r.site for r in outside})
    seeds = len({r.seed for r in outside})
    text = f"{count(cases, 'case')} of {count(len(sites), 'hospital')} ({', '.join(sites)})"
    text += f"; each figure is the mean of {seeds} repeats" if seeds > 1 else ""
    return f"{text}. It was not verified that no model trained on any of them."
