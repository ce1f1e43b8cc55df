"""A fusion as JSON, and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from gliofed.calibration.files import calibrations_from, calibrations_plain
from gliofed.calibration.fusion import FUSED, Fusion, LinearPart, MarkerFusion
from gliofed.errors import DataError


def fusion_json(fusion: Fusion) -> str:
    """A fusion as JSON text; numbers read back exactly. Notes of calibrations, which name sites,
    are left out."""
    plain = {
        "markers": {m: dataclasses.asdict(row) for m, row in sorted(fusion.markers.items())},
        "calibrations": calibrations_plain(fusion.calibrations),
    }
    return json.dumps(plain, indent=1, allow_nan=False)


def parse_fusion(text: str, where: str) -> Fusion:
    """Read what `fusion_json` wrote. Raises DataError if it is damaged or of other markers."""
    try:
        raw = json.loads(text)
        markers = {str(m): _marker(row) for m, row in raw["markers"].items()}
        _check(markers)
        calibrations = calibrations_from(raw["calibrations"], where)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a fusion: {error}; fetch the model again") from None
    return Fusion(markers, calibrations)


def _check(markers: Mapping[str, MarkerFusion]) -> None:
    named = [row.marker for row in markers.values()]
    if not markers or named != list(markers) or set(named) - set(FUSED):
        raise ValueError(f"it is of the markers {named}, expected {list(FUSED)}")


def _marker(row: Mapping[str, Any]) -> MarkerFusion:
    parts = {name: LinearPart(**_tuples(row[name])) for name in ("mask", "person")}
    return MarkerFusion(**{**_tuples(row), **parts})


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
