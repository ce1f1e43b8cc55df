"""A calibration as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gliofed.calibration.calibrator import Calibration
from gliofed.calibration.conformal import PredictionSets
from gliofed.calibration.joint_decision import allowed_cells
from gliofed.calibration.selective import ConfidenceThreshold
from gliofed.calibration.statistics_json import scaling_from_json
from gliofed.errors import DataError
from gliofed.markers import BY_ID
from gliofed.study import CalibrationConfig

_THRESHOLD_KEYS: Final = {"target_risk": "wished", "n_kept": "kept", "n_errors": "errors"}
"""Fields of `ConfidenceThreshold` whose key in the file differs: old files must open."""


def calibration_json(calibration: Calibration) -> str:
    """A calibration as JSON text; numbers read back exactly."""
    plain = {
        "wishes": dataclasses.asdict(calibration.config),
        "scalings": {m: dataclasses.asdict(row) for m, row in calibration.scalings.items()},
        "sets": {m: dataclasses.asdict(row) for m, row in calibration.sets.items()},
        "limits": {m: _threshold_plain(row) for m, row in calibration.thresholds.items()},
        "cells": calibration.cells,
        "notes": dict(calibration.notes),
    }
    return json.dumps(plain, indent=1, allow_nan=False)


def parse_calibration(text: str, where: str) -> Calibration:
    """Read what `calibration_json` wrote.

    Raises DataError if it cannot be read or has impossible values.
    """
    try:
        raw = json.loads(text, object_hook=_tuples)
        found = Calibration(
            CalibrationConfig(**raw["wishes"]),
            {m: scaling_from_json(m, row) for m, row in raw["scalings"].items()},
            {m: PredictionSets(**row) for m, row in raw["sets"].items()},
            {m: _threshold_from(row) for m, row in raw["limits"].items()},
            raw["cells"],
            dict(raw["notes"]),
        )
        _check(found)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a calibration: {error}; fit it again") from None
    return found


def calibrations_plain(calibrations: Mapping[int, Calibration]) -> dict[str, Any]:
    """Calibrations of one model as plain values, without their notes, which name sites.

    calibrations: by the largest number of missing sequences of the cases each was fitted on.
    """
    return {
        str(missing): json.loads(
            calibration_json(
                dataclasses.replace(calibration, notes=dict.fromkeys(calibration.notes, ""))
            )
        )
        for missing, calibration in sorted(calibrations.items())
    }


def calibrations_from(plain: Mapping[str, Any], where: str) -> dict[int, Calibration]:
    """Read what `calibrations_plain` gave. Raises DataError, ValueError or AttributeError."""
    return {
        int(missing): parse_calibration(json.dumps(values), where)
        for missing, values in plain.items()
    }


def _threshold_plain(threshold: ConfidenceThreshold) -> dict[str, Any]:
    """Fields under the keys of the file format, which are those of the first version."""
    plain = dataclasses.asdict(threshold)
    return {_THRESHOLD_KEYS.get(name, name): value for name, value in plain.items()}


def _threshold_from(raw: Mapping[str, Any]) -> ConfidenceThreshold:
    names = {key: name for name, key in _THRESHOLD_KEYS.items()}
    return ConfidenceThreshold(**{names.get(key, key): value for key, value in raw.items()})


def _check(found: Calibration) -> None:
    tables: Mapping[str, Mapping[str, Any]] = {
        "scalings": found.scalings,
        "sets": found.sets,
        "limits": found.thresholds,
    }
    for name, rows in tables.items():
        if set(rows) != set(BY_ID) or any(row.marker != m for m, row in rows.items()):
            raise ValueError(f"{name}: expected one for each of {sorted(BY_ID)}")
    for marker in BY_ID:
        own = found.sets[marker].at_least
        if len(own) != len(BY_ID[marker].classes) or not all(math.isfinite(v) for v in own):
            raise ValueError(f"{marker}: thresholds {own}")
        at_least = found.thresholds[marker].at_least
        if at_least is not None and not 0 <= at_least <= 1:
            raise ValueError(f"{marker}: limit {at_least}")
    if found.cells is not None:
        counts = np.asarray(found.cells)
        if counts.shape != allowed_cells().shape or counts.dtype.kind != "i" or (counts < 0).any():
            raise ValueError(f"cells: expected counts of shape {allowed_cells().shape}")


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    """An object with its arrays as tuples."""
    return {k: _deep(v) if isinstance(v, list) else v for k, v in row.items()}


def _deep(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_deep(v) if isinstance(v, list) else v for v in value)
