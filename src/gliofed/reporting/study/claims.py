"""Verdicts on the claims about a model, and the comparisons behind them, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.claims import ClaimVerdict, Evidence, judge_claims
from gliofed.evaluation.comparison import Comparison
from gliofed.evaluation.paired import TASKS
from gliofed.evaluation.results import Role
from gliofed.reporting.html.formatting import (
    count,
    is_calibrated,
    model_title,
    p_value,
    short_title,
    signed_with_interval,
    site_title,
)
from gliofed.reporting.plots.forest_plot import (
    ForestPanel,
    ForestPlot,
    PointEstimate,
    axis_limits,
    forest_plot,
)
from gliofed.reporting.plots.style import Plot
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.tables import in_order

ROLES: Final[tuple[Role, ...]] = ("external", "holdout")
ROLE_TITLES: Final = {
    "external": "External test: patients of hospitals that trained nothing",
    "holdout": "Held-out patients of training hospitals",
}
SHORT_ROLES: Final = {"external": "external", "holdout": "held out"}
DIGITS: Final = 3
LEAST_REACH: Final = 0.1


@dataclass(frozen=True)
class ClaimLine:
    """words: supported, not supported or n/a. why: the figures that it rests on."""

    claim: str
    words: str
    why: str


@dataclass(frozen=True)
class ClaimsTable:
    """Of one role. own: on the model itself. differ: that other models differ from it. summary: of
    the latter, one sentence; empty without any."""

    role: str
    title: str
    own: tuple[ClaimLine, ...]
    differ: tuple[ClaimLine, ...]
    summary: str


@dataclass(frozen=True)
class ComparisonLine:
    """One comparison. verdict: may be empty."""

    role: str
    site: str
    model: str
    task: str
    n: str
    difference: str
    p: str
    p_holm: str
    verdict: str
    method: str
    note: str


@dataclass(frozen=True)
class ComparisonMatrix:
    """Of one role, all sites: other models against the reference, a line a model, a cell a task."""

    title: str
    tasks: tuple[str, ...]
    lines: tuple[tuple[str, tuple[ComparisonLine, ...]], ...]


def claims_tables(evidence: Evidence) -> tuple[ClaimsTable, ...]:
    """The external role first; a role without a claim is omitted."""
    on_model = judge_claims(
        evidence.against_chance, evidence.against_confounders, evidence.added_value, ()
    )
    differ = judge_claims((), (), (), without_calibrated(evidence.comparisons))
    return tuple(
        _claims(
            role, [v for v in on_model if v.role == role], [v for v in differ if v.role == role]
        )
        for role in ROLES
        if any(v.role == role for v in (*on_model, *differ))
    )


def _claims(
    role: Role, on_model: Sequence[ClaimVerdict], differ: Sequence[ClaimVerdict]
) -> ClaimsTable:
    tested = [v for v in differ if v.supported is not None]
    summary = ""
    if differ:
        supported = sum(bool(v.supported) for v in differ)
        summary = f"{count(len(differ), 'comparison')} with other models: "
        summary += f"{supported} differences supported"
        summary += f", {len(tested) - supported} not supported, {len(differ) - len(tested)} n/a"
    return ClaimsTable(
        role, ROLE_TITLES[role], _claim_lines(on_model), _claim_lines(differ), summary
    )


def _claim_lines(verdicts: Sequence[ClaimVerdict]) -> tuple[ClaimLine, ...]:
    return tuple(ClaimLine(v.claim, v.label, v.reason) for v in verdicts)


def without_calibrated(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Comparisons without calibrated models, whose segmentations and ranks are those of the model
    itself."""
    return tuple(c for c in comparisons if not is_calibrated(c.model))


def differences(evidence: Evidence) -> tuple[ComparisonMatrix | None, tuple[ComparisonLine, ...]]:
    """Other models against the reference: first methods over all sites, of the external role where
    it has any; then the rest: the other role, each site, and second methods."""
    models = in_order((c.model for c in evidence.comparisons), "")
    every = sorted(
        without_calibrated(evidence.comparisons),
        key=lambda c: (ROLES.index(c.role), TASKS.index(c.task), models.index(c.model)),
    )
    all_sites = [c for c in every if c.is_primary and c.site == ALL_SITES]
    first = [c for c in all_sites if c.role == all_sites[0].role]
    rest = tuple(comparison_line(c) for c in every if c not in first)
    return (_matrix(first, models) if first else None), rest


def _matrix(first: Sequence[Comparison], models: Sequence[str]) -> ComparisonMatrix:
    by_cell = {(c.model, c.task): comparison_line(c) for c in first}
    return ComparisonMatrix(
        ROLE_TITLES[first[0].role],
        tuple(map(short_title, TASKS)),
        tuple(
            (model_title(m), tuple(by_cell[m, t] for t in TASKS))
            for m in models
            if (m, TASKS[0]) in by_cell
        ),
    )


def comparison_line(c: Comparison) -> ComparisonLine:
    """In words. Of a comparison of two models, its verdict is that they differ."""
    verdicts = judge_claims((), (), (), (c,))
    return ComparisonLine(
        role=SHORT_ROLES[c.role],
        site=site_title(c.site),
        model=model_title(c.model),
        task=short_title(c.task),
        n=str(c.n),
        difference=signed_with_interval(c.difference, c.low, c.high, DIGITS) or "n/a",
        p=p_value(c.p),
        p_holm=p_value(c.p_holm),
        verdict=verdicts[0].label if verdicts else "",
        method=c.method,
        note=c.note,
    )


def difference_plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """Every other model less the reference on all external cases; empty without one."""
    if scored.evidence is None:
        return ()
    by_cell = {
        (c.model, c.task): c
        for c in without_calibrated(scored.evidence.comparisons)
        if c.role == "external" and c.site == ALL_SITES and c.is_primary
    }
    models = in_order((m for m, _ in by_cell), scored.reference)
    if not models:
        return ()
    reach = [v for c in by_cell.values() for v in (c.low, c.high, c.difference)]
    limits = axis_limits(reach, 0, LEAST_REACH)
    panels = tuple(
        ForestPanel(short_title(t), tuple(_point(by_cell.get((m, t))) for m in models), 0, limits)
        for t in TASKS
    )
    lines = tuple(map(model_title, models))
    axis = f"difference to {model_title(scored.reference)}, with 95 % interval"
    words = f"Each model minus {model_title(scored.reference)}, external test, same cases:"
    return (forest_plot("differences", words, ForestPlot(lines, panels, axis)),)


def _point(c: Comparison | None) -> PointEstimate | None:
    if c is None:
        return None
    verdicts = judge_claims((), (), (), (c,))
    return PointEstimate(c.difference, c.low, c.high, full=bool(verdicts and verdicts[0].supported))
