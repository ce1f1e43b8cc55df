"""Upgrade of a model of an older format to a model folder."""

from __future__ import annotations

from pathlib import Path

from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ModelError, UpdateError
from gliofed.federated.server.calibration import last_calibration
from gliofed.federated.wire import load
from gliofed.models.folder import recipe_of, write_model
from gliofed.models.recipe import with_global_maxima
from gliofed.models.weights import check_weights
from gliofed.study import load_study
from gliofed.version import __version__


def upgrade_model(old: Path, study: Path, out: Path) -> str:
    """Write a model of format 1 as a model folder of the present format; returns its id.

    old: the `model.safetensors` of a federation's run (format 1). study: the file with its settings
    of preparation, which format 1 lacks. A `calibration.json` of the same run next to `old` is
    included. Raises ModelError: not a model of format 1, a digest of another study, or weights that
    do not fit the study's network; CheckpointError: a calibration that is damaged or of another
    run; StudyError, OSError.
    """
    try:
        weights, note = load(old)
        run, rounds, digest = str(note["run"]), int(note["rounds"]), note["study"]
    except (UpdateError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{old}: is not a model of format 1 ({error})") from None
    proposed = study_for_sites(load_study(study))
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
