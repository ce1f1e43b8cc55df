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
MOST_ACROSS: Final = 10
"""Tests that are columns; more of them than models are rows instead."""


@dataclass(frozen=True)
class CrossSiteCell:
    """shade: 0 (none) to SHADES. more: interval, then n; or why there is no figure."""

    value: str
    more: tuple[str, ...]
    shade: int


@dataclass(frozen=True)
class CrossSiteHeading:
    """Of a row or a column. title: a model or a hospital. about: the test at a hospital."""

    title: str
    about: str = ""


@dataclass(frozen=True)
class CrossSiteTable:
    """rows: "Model" or "Hospital"; the columns are the other. lines: a row and its cells."""

    title: str
    rows: str
    columns: tuple[CrossSiteHeading, ...]
    lines: tuple[tuple[CrossSiteHeading, tuple[CrossSiteCell, ...]], ...]


def cross_tables(matrices: Sequence[CrossSiteMatrix], reference: str) -> tuple[CrossSiteTable, ...]:
    """Models over tests, the reference first; without metrics that no cell has, and without
    calibrated models."""
    return tuple(
        _table(c, reference)
        for c in matrices
        if any(r.value is not None for row in c.cells for r in row)
    )


def _table(cross: CrossSiteMatrix, reference: str) -> CrossSiteTable:
    by_model = dict(zip(cross.models, cross.cells, strict=True))
    models = in_order(cross.models, reference)
    cells = [[_cell(m, row) for row in by_model[m]] for m in models]
    rows = [CrossSiteHeading(model_title(m)) for m in models]
    columns = [CrossSiteHeading(site, SHORT_ROLES[role]) for role, site in cross.columns]
    turned = len(columns) > max(MOST_ACROSS, len(rows))
    if turned:
        rows, columns = columns, rows
        cells = [list(own) for own in zip(*cells, strict=True)]
    return CrossSiteTable(
        f"{task_title(cross.task)}: {metric_title(cross.metric)}",
        "Hospital" if turned else "Model",
        tuple(columns),
        tuple((heading, tuple(own)) for heading, own in zip(rows, cells, strict=True)),
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
