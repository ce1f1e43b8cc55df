"""Upgrade of a model of an older format to a model folder."""

from __future__ import annotations

from pathlib import Path

from gliofed.deployment.training_job import study_for_sites
from gliofed.errors import ModelError, UpdateError
from gliofed.federated.server.calibration import last_calibration
from gliofed.federated.wire import load
from gliofed.models.folder import check_weights, recipe_of, write_model
from gliofed.study import load_study
from gliofed.version import __version__


def upgrade_model(old: Path, study: Path, out: Path) -> str:
    """A model of an older format as a folder of today's; its id.

    old: the `model.safetensors` of a federation's run (format 1), which does not say how cases are
    prepared for it; `study` does. A `calibration.json` beside it, of the same run, goes along.
    Raises ModelError: not such a file, of another study as far as digests of that version of
    gliofed can tell, or weights that are not of the study's network;
    CheckpointError: a calibration that is damaged or of another run; StudyError, OSError.
    """

    try:
        weights, note = load(old)
        run, rounds, made_of = str(note["run"]), int(note["rounds"]), note["study"]
    except (UpdateError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{old}: is no model of an older format ({error})") from None
    asked = study_for_sites(load_study(study))
    if note.get("gliofed") == __version__ and made_of != asked.digest:
        raise ModelError(
            f"{old}: was trained by a study of digest {str(made_of)[:12]}, {study} has "
            f"{asked.digest[:12]}; give the very study that it was started with"
        )
    recipe = recipe_of(asked, run, rounds)
    check_weights(weights, recipe, old)
    found = last_calibration(old.parent, run, rounds)
    calibrations = {0: found.calibration} if found else {}
    return write_model(out, recipe, weights, calibrations, lambda _: "")
