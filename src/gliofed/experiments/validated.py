"""Predictions for labelled cases, wherever they come from, with what their page needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gliofed.calibration.calibrator import Calibration
from gliofed.calibration.evaluation import (
    CalibratedCase,
    CalibrationEvaluation,
    ScalingRow,
    with_figures,
)
from gliofed.evaluation.results import CaseResult, Role
from gliofed.experiments.case_scores import ResultOrigin
from gliofed.reporting.study.content import SegmentationExample
from gliofed.study import CalibrationConfig

SEED: Final = 1
FOLD: Final = "external"
"""Seed and fold of every result of a given model: it is tested once."""
NOT_CALIBRATED: Final = "the predictions come without a calibration"
NAMED: Final = 5
"""Cases that one note names."""


def external_origin(model: str, role: Role = "external", fold: str = FOLD) -> ResultOrigin:
    """The origin of a given model's result."""
    return ResultOrigin(model, SEED, fold, role)


@dataclass(frozen=True)
class OwnCalibration:
    """The calibration that came with a model. cases: each result with the prediction that it makes
    of it. scalings: for the page. calibration: for cases without a missing sequence."""

    calibration: Calibration
    cases: tuple[CalibratedCase, ...]
    scalings: tuple[ScalingRow, ...]


@dataclass(frozen=True)
class ValidatedPredictions:
    """results: of one model, at least one. notes: what a reader must see. facts: the origin of the
    predictions, as (name, value) rows. complete: whether every case has a prediction. examples:
    single cases for the page. excluded: (case, hospital, why) of cases beyond quality limits.
    fused: the results with age and sex, of a model that joins them, under a name of their own;
    fused_calibrated: these with their calibration."""

    results: tuple[CaseResult, ...]
    notes: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    complete: bool
    examples: tuple[SegmentationExample, ...] = ()
    excluded: tuple[tuple[str, str, str], ...] = ()
    own: OwnCalibration | None = None
    fused: tuple[CaseResult, ...] = ()
    fused_calibrated: tuple[CaseResult, ...] = ()

    @property
    def model(self) -> str:
        """The model's name."""
        return self.results[0].model

    def calibration(self, replicates: int) -> CalibrationEvaluation:
        """The calibration that came with the model, evaluated on these cases; nothing is fitted.

        replicates: of each bootstrap interval.
        """
        config = self.own.calibration.config if self.own else CalibrationConfig()
        empty = CalibrationEvaluation(
            self.model, config, (), (), (), (), (), (), {}, NOT_CALIBRATED
        )
        if self.own is None:
            return empty
        own = {(SEED, FOLD): self.own.calibration}
        evaluation = replace(empty, scalings=self.own.scalings, calibrations=own)
        found = with_figures(evaluation, self.own.cases, replicates)
        return replace(found, results=(*found.results, *self.fused_calibrated))


def named(cases: Sequence[str]) -> str:
    """At most `NAMED` of the names, and how many more there are."""
    more = f" and {len(cases) - NAMED} more" if len(cases) > NAMED else ""
    return ", ".join(cases[:NAMED]) + more
