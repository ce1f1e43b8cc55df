"""Upgrade of a model of an older format to a model folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ModelError, UpdateError
from gliofed.federated.server.calibration import last_calibration
from gliofed.federated.wire import load
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.recipe import with_global_maxima
from gliofed.models.weights import check_weights
from gliofed.settings import read_toml
from gliofed.study import GridConfig, Study, load_study
from gliofed.version import __version__

_GRID: Final = GridConfig(spacing_mm=(1.0, 1.0, 1.0), patch=(96, 96, 96))
"""The default grid when models of format 1 were written."""


def upgrade_model(old: Path, study: Path, out: Path) -> str:
    """Write a model of format 1 as a model folder of the present format; returns its id.

    old: the `model.safetensors` of a federation's run (format 1). study: the file with its settings
    of preparation, which format 1 lacks; a grid that it leaves out is the default of then. A
    `calibration.json` of the same run next to `old` is included. Raises ModelError: not a model of
    format 1, a digest of another study, or weights that do not fit the study's network;
    CheckpointError: a calibration that is damaged or of another run; StudyError, OSError.
    """
    try:
        weights, note = load(old)
        run, rounds, digest = str(note["run"]), int(note["rounds"]), note["study"]
    except (UpdateError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{old}: is not a model of format 1 ({error})") from None
    proposed = study_for_sites(_load_study_of_then(study))
    if note.get("gliofed") == __version__ and digest != proposed.digest:
        raise ModelError(
            f"{old}: was trained by a study of digest {str(digest)[:12]}, {study} has "
            f"{proposed.digest[:12]}; give the study that it was trained with"
        )
    recipe = with_global_maxima(recipe_of(proposed, run, rounds))
    check_weights(weights, recipe.net, old)
    finished = last_calibration(old.parent, run, rounds)
    calibrations = {0: finished.calibration} if finished else {}
    return write_model(out, recipe, weights, calibrations, lambda _: "")


def _load_study_of_then(path: Path) -> Study:
    """As `load_study`, with the default grid of the time of format 1."""
    study, stated = load_study(path), read_toml(path, "study").get("grid", {})
    given = {name: getattr(study.grid, name) for name in stated}
    return dataclasses.replace(study, grid=dataclasses.replace(_GRID, **given))
