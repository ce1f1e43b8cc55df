"""Tables and figures that every page of scored predictions shows, in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.calibration.cns5 import UNSEEN
from gliofed.markers import MARKERS, Marker
from gliofed.reporting.html.formatting import is_single_site, model_title
from gliofed.reporting.plots import style
from gliofed.reporting.plots.probability_curves import marker_plots
from gliofed.reporting.plots.style import Picture, Plot, PrintFigures
from gliofed.reporting.study import (
    calibration_plots,
    calibration_tables,
    claims,
    confounding,
    cross_site,
    personal,
    tables,
)
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.score_plots import model_plots
from gliofed.runtime.files import write_bytes

PRINT: Final = "figures.pdf"
MOST_CURVES: Final = 3
NO_CALIBRATION: Final = "no calibration was evaluated"


@dataclass(frozen=True)
class MarkerFigures:
    """The figures of one marker; empty without a known external label."""

    marker: Marker
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class ReportContext:
    """Tables, figures and texts of a page, in reading order.

    reference: title of the model that the others are compared with. columns: heading and short
    description of each column of `headline`. evidence: whether comparisons were computed.
    curve_models: titles of the models that have curves. calibration: None if none was evaluated;
    `no_calibration_reason` then gives the reason.
    """

    reference: str
    columns: tuple[tuple[str, str], ...]
    headline: tuple[tables.HeadlineLine, ...]
    evidence: bool
    verdicts: tuple[claims.ClaimsTable, ...]
    models: tuple[Picture, ...]
    curve_models: tuple[str, ...]
    markers: tuple[MarkerFigures, ...]
    differences: claims.ComparisonMatrix | None
    more_differences: tuple[claims.ComparisonLine, ...]
    difference_pictures: tuple[Picture, ...]
    confounder_rankings: tuple[confounding.RankingTable, ...]
    added_value: tuple[confounding.AddedValueLine, ...]
    strata: tuple[confounding.StrataTable, ...]
    confounder_pictures: tuple[Picture, ...]
    strata_pictures: tuple[Picture, ...]
    cross_site_tables: tuple[cross_site.CrossSiteTable, ...]
    personal: tuple[personal.PersonalLine, ...]
    calibration: calibration_tables.CalibrationTables | None
    no_calibration_reason: str
    before_and_after: tuple[Picture, ...]
    coverage: tuple[Picture, ...]
    risks: tuple[Picture, ...]
    unseen: str
    agreement: tuple[calibration_tables.AgreementLine, ...]
    table: tuple[tables.ScoreLine, ...]
    filters: tuple[tables.TableFilter, ...]


def make_report_context(
    scored: ScoredPredictions, models: Sequence[str], about: Sequence[str]
) -> ReportContext:
    """models: one a column of the headline table, the reference first. about: a short description
    of each."""
    evidence, calibration = scored.evidence, scored.calibration
    first, rest = claims.differences(evidence) if evidence else (None, ())
    table = tables.full_table(scored.rows)
    return ReportContext(
        reference=model_title(scored.reference),
        columns=tuple(zip(map(model_title, models), about, strict=True)),
        headline=tables.headline(scored.rows, models, scored.reference),
        evidence=evidence is not None,
        verdicts=claims.claims_tables(evidence) if evidence else (),
        models=_pictures(model_plots(scored.rows, scored.reference)),
        curve_models=tuple(map(model_title, models_with_curves(scored))),
        markers=tuple(MarkerFigures(m, _pictures(_of_marker(m, scored))) for m in MARKERS),
        differences=first,
        more_differences=rest,
        difference_pictures=_pictures(claims.difference_plots(scored)),
        confounder_rankings=confounding.ranking_tables(scored),
        added_value=confounding.added_value_lines(evidence) if evidence else (),
        strata=confounding.strata_tables(evidence) if evidence else (),
        confounder_pictures=_pictures(confounding.alone_plots(scored)),
        strata_pictures=_pictures(confounding.strata_plots(scored)),
        cross_site_tables=cross_site.cross_tables(evidence.cross_site, scored.reference)
        if evidence
        else (),
        personal=personal.personal_lines(scored.rows, scored.reference),
        calibration=calibration_tables.make_calibration_tables(scored),
        no_calibration_reason=(calibration.note if calibration else "") or NO_CALIBRATION,
        before_and_after=_pictures(calibration_plots.before_and_after(scored)),
        coverage=_pictures(calibration_plots.coverage_plots(scored)),
        risks=_pictures(calibration_plots.risk_plots(scored)),
        unseen=UNSEEN,
        agreement=calibration_tables.agreement_lines(scored.mask_agreement),
        table=table,
        filters=tables.filters(table),
    )


def plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """Every figure that comes from predictions, in the order of the page."""
    return (
        *model_plots(scored.rows, scored.reference),
        *(p for m in MARKERS for p in _of_marker(m, scored)),
        *claims.difference_plots(scored),
        *confounding.alone_plots(scored),
        *confounding.strata_plots(scored),
        *calibration_plots.before_and_after(scored),
        *calibration_plots.coverage_plots(scored),
        *calibration_plots.risk_plots(scored),
    )


def write_figures(scored: ScoredPredictions, folder: Path) -> None:
    """Each figure of `plots` as NAME.svg at the width of a journal's column, and all as PRINT.

    File names depend on tasks, not on the data. Equal predictions give equal bytes. Other files in
    the folder stay. Without a figure nothing is written.
    """
    write_drawn_figures(draw_for_print(scored), folder)


def draw_for_print(scored: ScoredPredictions) -> PrintFigures:
    """The figures of `write_figures`."""
    return style.print_figures(plots(scored))


def write_drawn_figures(figures: PrintFigures, folder: Path) -> None:
    """The files of `write_figures`."""
    for name, svg in figures.single.items():
        write_bytes(folder / f"{name}.svg", svg)
    if figures.single:
        write_bytes(folder / PRINT, figures.document)


def _pictures(figures: Sequence[Plot]) -> tuple[Picture, ...]:
    return tuple(map(style.screen_picture, figures))


def _of_marker(marker: Marker, scored: ScoredPredictions) -> tuple[Plot, ...]:
    return marker_plots(marker, scored.results, scored.rows, models_with_curves(scored))


def models_with_curves(scored: ScoredPredictions) -> tuple[str, ...]:
    """Models with a curve: the reference, and the first others that are not single-site models."""
    order = tables.in_order((r.model for r in scored.results), scored.reference)
    others = [m for m in order if m != scored.reference and not is_single_site(m)]
    return (scored.reference, *others)[:MOST_CURVES]
