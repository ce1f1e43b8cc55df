"""The models of a finished run as folders that can be handed out, each with its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gliofed.calibration.calibrator import Calibration
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.sequence_ablation import WITHOUT, calibrations_by_missing
from gliofed.federated.checkpoint import CommittedRound
from gliofed.models.folder import recipe_of, write_model
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.study import Study

MODEL: Final = "model"
"""The folder of a model that can be handed out, within that of its training."""


def write_models(
    study: Study,
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    found: ScoredPredictions,
    hidden: Sequence[CaseResult],
    out: Path,
    card: str,
) -> tuple[Path, ...]:
    """One folder for each seed and fold of the model that claims are made of.

    hidden: its answers where sequences were hidden. card: the run's. Without cases to calibrate on,
    a model is written without a calibration. Raises ModelError and OSError.
    """
    natural = found.trial.calibrations if found.trial else {}
    written = []
    for cell, state in trained:
        if cell.model == found.reference:
            recipe = recipe_of(cell.rules(study), state.run, state.rounds)
            folder = cell.folder(out) / MODEL
            key = (cell.seed, cell.split.fold)
            fitted: Mapping[int, Calibration] = {}
            if key in natural:
                results = _of(found.results, key, found.reference)
                fitted = calibrations_by_missing(
                    natural[key], results, _of(hidden, key, found.reference)
                )
            write_model(folder, recipe, state.model, fitted, lambda _: card)
            written.append(folder)
    return tuple(written)


def _of(results: Sequence[CaseResult], key: tuple[int, str], model: str) -> list[CaseResult]:
    """Of one seed and fold of a model, also with sequences hidden."""
    return [
        r for r in results
        if (r.seed, r.fold) == key and r.model.partition(WITHOUT)[0] == model
    ]  # fmt: skip
