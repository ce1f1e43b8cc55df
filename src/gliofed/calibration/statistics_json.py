"""Requests and statistics of sites as plain JSON values and back; numbers come back exactly.

Input is validated: wrong types or shapes raise ValueError, KeyError, TypeError or AttributeError.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from gliofed.calibration.joint_decision import allowed_cells
from gliofed.calibration.probability_bins import BINS, Counts
from gliofed.calibration.scaling import FitPosition, ProbabilityScaling, ScalingKind
from gliofed.calibration.statistics import Cells, RequestStep, SiteStatistics, StatisticsRequest
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import LogisticSums
from gliofed.markers import BY_ID


def request_to_json(request: StatisticsRequest) -> dict[str, Any]:
    """The request as JSON values."""
    return dataclasses.asdict(request)


def request_from_json(raw: Mapping[str, Any]) -> StatisticsRequest:
    """Read what `request_to_json` made."""
    if raw["step"] not in get_args(RequestStep):
        raise ValueError(f"step {raw['step']!r}, expected one of {get_args(RequestStep)}")
    found = StatisticsRequest(
        step=raw["step"],
        places={_marker(m): _place(m, own) for m, own in raw["places"].items()},
        scalings={_marker(m): scaling_from_json(m, own) for m, own in raw["scalings"].items()},
        cells=None
        if raw["cells"] is None
        else freeze_cells(_counts(raw["cells"], allowed_cells().shape)),
    )
    if found.step == "limit" and set(found.scalings) != set(BY_ID):
        raise ValueError(f"scalings of {sorted(found.scalings)}, expected {sorted(BY_ID)}")
    return found


def scaling_from_json(marker: str, raw: Mapping[str, Any]) -> ProbabilityScaling:
    """A valid scaling: of this marker, its slope above 0, an intercept a class."""
    rest = {"intercepts": tuple(raw["intercepts"]), "sites": tuple(raw["sites"])}
    found = ProbabilityScaling(**{**raw, **rest})
    if found.marker != marker:
        raise ValueError(f"{marker}: is of {found.marker}")
    if found.kind not in get_args(ScalingKind):
        raise ValueError(f"{marker}: kind {found.kind!r}")
    if len(found.intercepts) != len(BY_ID[marker].classes):
        raise ValueError(f"{marker}: expected {len(BY_ID[marker].classes)} classes")
    if not all(math.isfinite(v) for v in (found.slope, *found.intercepts)) or found.slope <= 0:
        raise ValueError(f"{marker}: slope {found.slope}, expected one above 0")
    return found


def statistics_to_json(statistics: SiteStatistics) -> dict[str, Any]:
    """The statistics as JSON values."""
    return {
        "true_classes": {m: own.tolist() for m, own in statistics.true_classes.items()},
        "cells": None if statistics.cells is None else statistics.cells.tolist(),
        "hidden": list(statistics.suppressed),
        "not_finite": dict(statistics.not_finite),
        "sums": {
            m: [own.n, own.loss, own.gradient.tolist(), own.hessian.tolist()]
            for m, own in statistics.sums.items()
        },
        "confidences": {m: own.tolist() for m, own in statistics.confidences.items()},
    }


def statistics_from_json(raw: Mapping[str, Any], request: StatisticsRequest) -> SiteStatistics:
    """Read the statistics for `request`, which must be complete and have nothing else."""
    counted, limited = request.step == "count", request.step == "limit"
    found = SiteStatistics(
        true_classes={
            _marker(m): _counts(own, (len(BY_ID[m].classes), BINS))
            for m, own in raw["true_classes"].items()
        },
        cells=None if raw["cells"] is None else _counts(raw["cells"], allowed_cells().shape),
        suppressed=tuple(_marker(m) for m in raw["hidden"]),
        not_finite={_marker(m): int(_counts(n, ())) for m, n in raw["not_finite"].items()},
        sums={_marker(m): _sums(own, request.places[m]) for m, own in raw["sums"].items()},
        confidences={_marker(m): _counts(own, (2, BINS)) for m, own in raw["confidences"].items()},
    )
    every, none = set(BY_ID), set[str]()
    expected = {
        "true_classes": every if counted else none,
        "not_finite": every if counted else none,
        "sums": set(request.places),
        "confidences": every if limited else none,
    }
    for name, markers in expected.items():
        if set(getattr(found, name)) != markers:
            raise ValueError(f"{name} of {sorted(getattr(found, name))}, not {sorted(markers)}")
    if (found.cells is not None) != counted or (found.suppressed and not counted):
        raise ValueError("cells or suppressed markers do not fit the request")
    return found


def freeze_cells(table: Counts) -> Cells:
    """(2, 2, 3) as nested tuples."""
    return tuple(tuple(tuple(int(n) for n in row) for row in plane) for plane in table)


def _marker(name: str) -> str:
    if name not in BY_ID:
        raise ValueError(f"marker {name!r}, expected one of {sorted(BY_ID)}")
    return name


def _place(marker: str, raw: Mapping[str, Any]) -> FitPosition:
    kind = raw["kind"]
    width = {"temperature": 1, "platt": len(BY_ID[marker].classes)}.get(kind)
    if width is None:
        raise ValueError(f"{marker}: parameters of kind {kind!r}")
    return FitPosition(kind, tuple(_numbers(raw["coefficients"], (width,)).tolist()))


def _sums(raw: tuple[Any, Any, Any, Any], at: FitPosition) -> LogisticSums:
    n, loss, gradient, hessian = raw
    width = len(at.coefficients)
    return LogisticSums(
        int(_counts(n, ())),
        float(_numbers(loss, ())),
        _numbers(gradient, (width,)),
        _numbers(hessian, (width, width)),
    )


def _counts(value: object, shape: tuple[int, ...]) -> Counts:
    found = np.array(value)
    if found.dtype.kind != "i" or found.shape != shape or (found < 0).any():
        raise ValueError(f"expected counts of shape {shape}")
    return found.astype(np.int64)


def _numbers(value: object, shape: tuple[int, ...]) -> Values:
    found = np.array(value)
    if found.dtype.kind not in "if" or found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"expected finite numbers of shape {shape}")
    return found.astype(np.float64)
