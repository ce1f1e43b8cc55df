"""The models of a finished run as folders that can be handed out, each with its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gliofed.experiment.cells import Cell
from gliofed.fed.checkpoint import Committed
from gliofed.io.model import recipe_of, write_model
from gliofed.report.content import Scored
from gliofed.study import Study

MODEL: Final = "model"
"""The folder of a model that can be handed out, within that of its training."""


def write_models(
    study: Study, trained: Sequence[tuple[Cell, Committed]], found: Scored, out: Path, card: str
) -> tuple[Path, ...]:
    """One folder for each seed and fold of the model that claims are made of.

    card: the run's. Without cases to calibrate on, a model is written without a calibration.
    Raises ModelError and OSError.
    """
    calibrations = found.trial.calibrations if found.trial else {}
    written = []
    for cell, state in trained:
        if cell.model == found.reference:
            recipe = recipe_of(cell.rules(study), state.run, state.rounds)
            folder = cell.folder(out) / MODEL
            calibration = calibrations.get((cell.seed, cell.split.fold))
            write_model(folder, recipe, state.model, calibration, lambda _: card)
            written.append(folder)
    return tuple(written)
