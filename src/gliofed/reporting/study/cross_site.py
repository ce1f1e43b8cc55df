"""Scores of each model at each hospital: one table a metric, cells with a figure and a shade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.comparison import CrossSiteMatrix
from gliofed.evaluation.results import ScoreRow
from gliofed.reporting.html.formatting import (
    interval,
    is_single_site,
    metric_title,
    model_title,
    number,
    task_title,
)
from gliofed.reporting.study.claims import SHORT_ROLES
from gliofed.reporting.study.tables import in_order

SHADES: Final = 6
FLOORS: Final = {"auc": 0.5, "dice": 0.0}


@dataclass(frozen=True)
class CrossSiteCell:
    """shade: 0 (none) to SHADES. more: interval, then n; or why there is no figure."""

    value: str
    more: tuple[str, ...]
    shade: int


@dataclass(frozen=True)
class CrossSiteTable:
    """columns: (role, site). lines: a model's title and a cell a column."""

    title: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[CrossSiteCell, ...]], ...]


def cross_tables(matrices: Sequence[CrossSiteMatrix], reference: str) -> tuple[CrossSiteTable, ...]:
    """Models over tests, the reference first; without metrics that no cell has, and without
    calibrated models."""
    return tuple(
        _table(c, reference)
        for c in matrices
        if any(r.value is not None for row in c.cells for r in row)
    )


def _table(cross: CrossSiteMatrix, reference: str) -> CrossSiteTable:
    cells = dict(zip(cross.models, cross.cells, strict=True))
    rows = [(m, cells[m]) for m in in_order(cross.models, reference)]
    return CrossSiteTable(
        f"{task_title(cross.task)}: {metric_title(cross.metric)}",
        tuple((SHORT_ROLES[role], site) for role, site in cross.columns),
        tuple((model_title(m), tuple(_cell(m, r) for r in cells)) for m, cells in rows),
    )


def _cell(model: str, row: ScoreRow) -> CrossSiteCell:
    if row.value is None:
        trained_there = is_single_site(model) and model.partition(":")[2] == row.site
        untested = "trained there" if trained_there and not row.n else row.note
        return CrossSiteCell("", (untested,), 0)
    span = interval(row.low, row.high, 2)
    floor = FLOORS[row.metric]
    share = min(1.0, max(0.0, (row.value - floor) / (1 - floor)))
    more = tuple(filter(None, (span, f"n = {row.n}")))
    return CrossSiteCell(number(row.value, 2), more, round(share * SHADES))
