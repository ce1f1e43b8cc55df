"""AUC of age, sex, volume or IDH alone, the model's added value, and figures within strata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.claims import Evidence, judge_claim
from gliofed.evaluation.comparison import BY_CHANCE, Comparison
from gliofed.evaluation.confounding import CONFOUNDERS, POSITIVE_CLASS
from gliofed.evaluation.metrics.definitions import RANKED_METRIC
from gliofed.evaluation.paired import TASKS
from gliofed.evaluation.results import Role, ScoreRow
from gliofed.markers import MARKERS
from gliofed.reporting.html.formatting import (
    NOT_AVAILABLE,
    estimate,
    missing_reason,
    model_title,
    p_value,
    short_title,
    signed_with_interval,
    with_interval,
)
from gliofed.reporting.plots.forest_plot import (
    UNIT_LIMITS,
    ForestPanel,
    ForestPlot,
    PointEstimate,
    forest_plot,
)
from gliofed.reporting.plots.style import Plot
from gliofed.reporting.study.claims import ROLE_TITLES, ROLES, SHORT_ROLES
from gliofed.reporting.study.content import ScoredPredictions

CHANCE: Final = 0.5
NOT_EVALUATED: Final = "not evaluated"


@dataclass(frozen=True)
class RankingLine:
    """The AUC of one ranking for each marker: "0.83 (0.80 to 0.86), n = 926"."""

    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RankingTable:
    """Rankings of one role: the model first, then each confounder alone. markers: column
    headings."""

    role: str
    title: str
    markers: tuple[str, ...]
    lines: tuple[RankingLine, ...]


@dataclass(frozen=True)
class AddedValueLine:
    """One test of the model's added value."""

    role: str
    marker: str
    question: str
    figure: str
    n: str
    p_holm: str
    verdict: str
    note: str


@dataclass(frozen=True)
class StrataTable:
    """Strata of one role: a line a stratum, a cell a task."""

    role: str
    title: str
    tasks: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def ranking_tables(scored: ScoredPredictions) -> tuple[RankingTable, ...]:
    """A table for each role with a confounder; external first."""
    if scored.evidence is None:
        return ()
    heads = tuple(
        f"{m.title}: {POSITIVE_CLASS[m.id]}" if m.id == "grade" else f"{m.title}" for m in MARKERS
    )
    out = []
    for role in ROLES:
        alone = [r for r in scored.evidence.confounder_scores if r.role == role]
        if alone:
            sources = [
                (model_title(scored.reference), _of_model(scored, role)),
                *((c.name, _of(alone, c.name)) for c in CONFOUNDERS),
            ]
            lines = tuple(
                RankingLine(name, tuple(_reached(rows.get(m.id)) for m in MARKERS))
                for name, rows in sources
            )
            out.append(RankingTable(role, ROLE_TITLES[role], heads, lines))
    return tuple(out)


def added_value_lines(evidence: Evidence) -> tuple[AddedValueLine, ...]:
    """Tests of a better AUC and of added information; primary methods, external first."""
    every = [c for c in (*evidence.against_confounders, *evidence.added_value) if c.is_primary]
    return tuple(_added(c) for role in ROLES for c in every if c.role == role)


def _added(c: Comparison) -> AddedValueLine:
    if c.method == BY_CHANCE:
        question, text = f"better than {c.other}", _area(c)
    elif c.metric == "auc":
        gap = signed_with_interval(c.difference, c.low, c.high, 3)
        question, text = f"better than {c.other}", f"AUC, difference {gap}" if gap else ""
    else:
        slope = signed_with_interval(c.difference, c.low, c.high, 2)
        question = f"adds to it, {c.other}"
        text = f"log odds for one standard deviation {slope}" if slope else ""
    return AddedValueLine(
        SHORT_ROLES[c.role],
        short_title(c.task, ""),
        question,
        text or NOT_AVAILABLE,
        str(c.n),
        p_value(c.p_holm),
        judge_claim(c, question).label,
        verdict_note(c),
    )


def _area(c: Comparison) -> str:
    """The AUC itself; the comparison has the AUC less 0.5."""
    value, low, high = (None if v is None else v + CHANCE for v in (c.difference, c.low, c.high))
    return "" if value is None else f"AUC {with_interval(value, low, high, 3)}"


def verdict_note(c: Comparison) -> str:
    """Why there is no verdict; else the note of the comparison."""
    verdict = judge_claim(c, "")
    return verdict.reason if verdict.supported is None else c.note


def strata_tables(evidence: Evidence) -> tuple[StrataTable, ...]:
    """A table for each role with strata; cells with too few cases have a note."""
    out = []
    for role in ROLES:
        rows = [r for r in evidence.strata if r.role == role]
        if rows:
            by_cell = {(r.stratum, r.task): r for r in rows}
            lines = tuple(
                (name, tuple(_within(by_cell.get((name, t))) for t in TASKS))
                for name in dict.fromkeys(r.stratum for r in rows)
            )
            out.append(StrataTable(role, ROLE_TITLES[role], tuple(map(short_title, TASKS)), lines))
    return tuple(out)


def alone_plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """External test: the model and each confounder; empty without a figure."""
    if scored.evidence is None:
        return ()
    alone = [r for r in scored.evidence.confounder_scores if r.role == "external"]
    if not any(r.value is not None for r in alone):
        return ()
    names = tuple(c.name for c in CONFOUNDERS)
    model_rows = _of_model(scored, "external")
    panels = tuple(
        ForestPanel(
            f"{short_title(m.id)}{' of 4' if m.id == 'grade' else ''}",
            (
                _point(model_rows.get(m.id)),
                *(_point(_of(alone, n).get(m.id), full=False) for n in names),
            ),
            CHANCE,
            UNIT_LIMITS,
        )
        for m in MARKERS
    )
    model = model_title(scored.reference)
    words = f"AUC of {model} and of each confounder alone, external test:"
    lattice = ForestPlot((model, *names), panels, "AUC, with 95 % interval; vertical line: chance")
    return (forest_plot("confounders", words, lattice),)


def strata_plots(scored: ScoredPredictions) -> tuple[Plot, ...]:
    """External test: a line for each stratum with a figure; empty without one."""
    if scored.evidence is None:
        return ()
    rows = [r for r in scored.evidence.strata if r.role == "external"]
    with_value = {r.stratum for r in rows if r.value is not None}
    names = tuple(n for n in dict.fromkeys(r.stratum for r in rows) if n in with_value)
    if not names:
        return ()
    by_cell = {(r.stratum, r.task): r for r in rows}
    all_cases = {
        (r.task, r.metric): r.value
        for r in scored.rows
        if (r.role, r.site, r.model) == ("external", ALL_SITES, scored.reference)
    }
    panels = tuple(
        ForestPanel(
            short_title(t),
            tuple(_point(by_cell.get((n, t)), few="too few") for n in names),
            0.0 if t == "mask" else CHANCE,
            UNIT_LIMITS,
            all_cases.get((t, "dice" if t == "mask" else "auc")),
        )
        for t in TASKS
    )
    axis = "value with 95 % interval; grey line: chance; dashed: all external cases"
    words = f"Strata of the external test, {model_title(scored.reference)}:"
    return (forest_plot("strata", words, ForestPlot(names, panels, axis)),)


def _point(row: ScoreRow | None, few: str = "n/a", full: bool = True) -> PointEstimate | None:
    return None if row is None else PointEstimate(row.value, row.low, row.high, few, full)


def _of_model(scored: ScoredPredictions, role: Role) -> Mapping[str, ScoreRow]:
    """The model's AUC for the class that confounders rank, over all cases with a label."""
    return {
        r.task: r
        for r in scored.rows
        if (r.role, r.site, r.model) == (role, ALL_SITES, scored.reference)
        and r.metric == RANKED_METRIC.get(r.task, "auc")
    }


def _of(alone: Sequence[ScoreRow], name: str) -> Mapping[str, ScoreRow]:
    return {r.task: r for r in alone if r.model == name}


def _reached(row: ScoreRow | None) -> str:
    if row is None:
        return NOT_EVALUATED
    text = estimate(row, 2)
    return (
        f"{text}, n = {row.n}"
        if row.value is not None
        else f"{text}, n = {row.n}: {missing_reason(row)}"
    )


def _within(row: ScoreRow | None) -> str:
    if row is None:
        return NOT_EVALUATED
    if row.value is None:
        return f"{missing_reason(row)} (n = {row.n})"
    return f"{estimate(row, 2)}, n = {row.n}"
