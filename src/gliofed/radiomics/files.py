"""Radiomics models, their coefficients, and cases without features, as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.markers import MARKERS
from gliofed.radiomics.combat import SharedEffects
from gliofed.radiomics.regression import (
    Harmonisation,
    MarkerRegression,
    RadiomicsModel,
    feature_coefficients,
)
from gliofed.radiomics.standardisation import FeatureScaling

if TYPE_CHECKING:  # the library of features is an extra
    from gliofed.radiomics.features import CaseWithoutFeatures


def model_json(model: RadiomicsModel) -> str:
    """A model as JSON; numbers read back exactly, NaN as null."""
    harmonisation = model.harmonisation
    whole = {
        "name": model.name,
        "features": model.features,
        "scaling": _scaling_plain(model.scaling),
        "harmonisation": harmonisation
        and {
            "people": _scaling_plain(harmonisation.people),
            "level": _plain(harmonisation.shared.level),
            "slopes": _plain(harmonisation.shared.slopes),
            "spread": _plain(harmonisation.shared.spread),
        },
        "markers": {
            name: {
                "coefficients": _plain(own.coefficients),
                "errors": _plain(own.errors),
                "ridge": None if np.isnan(own.ridge) else own.ridge,
                "cases": own.cases,
                "note": own.note,
            }
            for name, own in model.markers.items()
        },
    }
    return json.dumps(whole, allow_nan=False) + "\n"


def parse_model(text: str, where: str) -> RadiomicsModel:
    """Read what `model_json` wrote. Raises DataError if it is damaged or has other markers."""
    try:
        raw = json.loads(text)
        model = RadiomicsModel(
            str(raw["name"]),
            tuple(map(str, raw["features"])),
            _scaling(raw["scaling"]),
            raw["harmonisation"] and _harmonisation(raw["harmonisation"]),
            {str(name): _marker(own) for name, own in raw["markers"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a radiomics model ({error}); train it again") from None
    _check(model, where)
    return model


def weights_csv(models: Sequence[RadiomicsModel]) -> str:
    """One line a model, marker, class and feature, the largest coefficient of each marker first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", "marker", "class", "feature", "coefficient", "low", "high"])
    for model in models:
        for marker in MARKERS:
            for w in feature_coefficients(model, marker):
                numbers = [repr(n) for n in (w.value, w.low, w.high)]
                writer.writerow([model.name, marker.id, w.class_name, w.feature, *numbers])
    return out.getvalue()


def excluded_cases_csv(left: Sequence[CaseWithoutFeatures]) -> str:
    """One line for each case without features."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["site", "case", "reason"])
    writer.writerows([item.case.site, item.case.id, item.reason] for item in left)
    return out.getvalue()


def _plain(values: Values) -> list[Any]:
    """Nested lists, NaN as None."""
    plain: list[Any] = np.where(np.isnan(values), None, values).tolist()  # type: ignore[call-overload]  # (numpy knows no None)
    return plain


def _scaling_plain(scaling: FeatureScaling) -> Mapping[str, object]:
    return {"mean": _plain(scaling.mean), "scale": _plain(scaling.scale)}


def _scaling(raw: Mapping[str, Any]) -> FeatureScaling:
    return FeatureScaling(_array(raw["mean"]), _array(raw["scale"]))


def _harmonisation(raw: Mapping[str, Any]) -> Harmonisation:
    shared = SharedEffects(_array(raw["level"]), _array(raw["slopes"]), _array(raw["spread"]))
    return Harmonisation(_scaling(raw["people"]), shared)


def _marker(raw: Mapping[str, Any]) -> MarkerRegression:
    ridge = float("nan") if raw["ridge"] is None else float(raw["ridge"])
    cases = tuple(int(n) for n in raw["cases"])
    return MarkerRegression(
        _array(raw["coefficients"]), _array(raw["errors"]), ridge, cases, str(raw["note"])
    )


def _array(raw: object) -> Values:
    return np.array(raw, np.float64)


def _check(model: RadiomicsModel, where: str) -> None:
    """Check that every array has the shape given by the features and markers."""
    width = len(model.features)
    shapes: list[tuple[Values, tuple[int, ...]]]
    shapes = [(model.scaling.mean, (width,)), (model.scaling.scale, (width,))]
    if model.harmonisation is not None:
        shared = model.harmonisation.shared
        own = len(model.harmonisation.people.mean)
        shapes += [(shared.level, (width,)), (shared.spread, (width,))]
        shapes.append((shared.slopes, (width, own)))
    for marker in MARKERS:
        found = model.markers.get(marker.id)
        if found is None:
            raise DataError(f"{where}: has no {marker.id}; train it again")
        rows = 1 if len(marker.classes) == 2 else len(marker.classes)
        shapes += [(found.coefficients, (rows, 1 + width)), (found.errors, (rows, 1 + width))]
    if any(array.shape != shape for array, shape in shapes):
        raise DataError(f"{where}: its numbers do not fit its features; train it again")
