"""A model's calibration fitted anew on labelled cases of where it will be used.

Its effect is measured by cross-validation over patients: each case gets the calibration of the
others. The model that is written has the calibration of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.evaluation import calibrated_cases, cases_by_site
from gliofed.calibration.site_statistics import local_exchange
from gliofed.errors import DataError
from gliofed.evaluation.results import CaseResult, missing_sequences
from gliofed.markers import MARKERS
from gliofed.models.folder import TrainedModel, write_model
from gliofed.study import CalibrationConfig

PARTS: Final = 5
"""Parts of the cross-validation, and the fewest patients of each class that a marker needs."""
RECALIBRATED: Final = ", recalibrated"
"""Suffix of the model's name. Its probabilities are cross-validated: it is a model of its own."""


@dataclass(frozen=True)
class Recalibration:
    """calibration: fitted on all cases. results: each case by the calibration of the other parts.
    missing: largest number of missing sequences among the cases."""

    calibration: Calibration
    results: tuple[CaseResult, ...]
    missing: int

    @property
    def text(self) -> str:
        """What it was fitted on."""
        sites = ", ".join(sorted({r.site for r in self.results}))
        return f"fitted on {len(self.results)} cases of {sites}"


def recalibrate(model: TrainedModel, results: Sequence[CaseResult]) -> Recalibration:
    """Fit a calibration on the results of a model. Raises DataError where no marker has `PARTS`
    patients of each class."""
    _check_classes(results, model.recipe.untrained)
    config = next((c.config for c in model.calibrations.values()), CalibrationConfig())
    crossed: dict[int, CaseResult] = {}
    for part in range(PARTS):
        tested = [r for r in results if _part(r) == part]
        others = [r for r in results if _part(r) != part]
        for found in calibrated_cases(_fit(others, config), tested):
            crossed[id(found.result)] = replace(
                found.result,
                model=found.result.model + RECALIBRATED,
                probabilities=found.answer.probabilities,
            )
    return Recalibration(
        _fit(results, config),
        tuple(crossed[id(r)] for r in results),
        max(map(missing_sequences, results)),
    )


def write_recalibrated(model: TrainedModel, found: Recalibration, folder: Path) -> str:
    """Write the model with the new calibration; return its id.

    It serves cases with up to as many missing sequences as it was fitted on; the model's own
    calibrations stay for those with more. Raises ModelError and OSError as `write_model`.
    """
    others = {n: c for n, c in model.calibrations.items() if n > found.missing}
    note = (
        f"\n## Recalibration\n\nThe calibration of model `{model.id}` was replaced on "
        f"{date.today()} by one {found.text}. The weights are the same. Figures above are of the "
        "model before.\n"
    )
    return write_model(
        folder,
        model.recipe,
        model.members,
        {found.missing: found.calibration, **others},
        lambda _: model.card + note,
    )


def _fit(results: Sequence[CaseResult], config: CalibrationConfig) -> Calibration:
    return fit_calibration(local_exchange(cases_by_site(results)), config)


def _part(result: CaseResult) -> int:
    """Of the cross-validation, by a hash of the patient."""
    return hashlib.sha256(result.patient.encode()).digest()[0] % PARTS


def _check_classes(results: Sequence[CaseResult], untrained: Sequence[str]) -> None:
    counts = {
        m.title: [len({r.patient for r in results if r.labels[m.id] == c}) for c in m.classes]
        for m in MARKERS
        if m.id not in untrained
    }
    if not any(min(each) >= PARTS for each in counts.values()):
        has = "; ".join(f"{title} {'/'.join(map(str, n))}" for title, n in counts.items())
        raise DataError(
            f"too few labels to recalibrate: a marker needs {PARTS} patients of each class, these "
            f"cases have {has}; leave out --recalibrated"
        )
