"""The study of a validation between hospitals: a given model, bound by its id, and no training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gliofed.errors import ModelError
from gliofed.federation_config import FederationConfig
from gliofed.markers import MARKERS
from gliofed.models.folder import RECORD, TrainedModel, check_steps, known_files, place_model
from gliofed.study import CalibrationConfig, DataConfig, LossConfig, ScoreConfig, Study


def validation_study(model: TrainedModel, sites: Sequence[str]) -> Study:
    """The study in which `sites` test a model on all their cases, prepared as its recipe has it.

    Markers for which the model was not trained have the loss weight 0.
    """
    recipe = model.recipe
    weights = {m.id: 0.0 if m.id in recipe.untrained else m.task_weight for m in MARKERS}
    calibrations = (c.config for c in model.calibrations.values())
    return Study(
        name=f"validation of {recipe.name} {model.id[:8]}",
        data=DataConfig(Path(), (), tuple(sites), synthetic=recipe.synthetic),
        models=("federated",),
        grid=recipe.grid,
        prepare=recipe.prepare,
        quality=recipe.quality,
        net=recipe.net,
        loss=LossConfig(markers=weights),
        federation=FederationConfig(validates=model.id),
        score=ScoreConfig(mirror=recipe.mirror),
        calibration=next(calibrations, CalibrationConfig()),
    )


def take_given_model(sent: Path, folder: Path, study: Study) -> TrainedModel:
    """Write the model that came with a job, in the folder `sent`, into `folder`, in one step.

    Raises ModelError as `place_model`, and where it is not the model of the study: `folder` is then
    as it was.
    """
    present = {p.name for p in sent.iterdir()} if sent.is_dir() else set()
    files = {n: (sent / n).read_bytes() for n in present & {RECORD, *known_files(present)}}
    if not files:
        raise ModelError(
            f"the job of study {study.name!r} came without the model; start it with "
            "gliofed federation validate MODEL STUDY"
        )
    return place_model(folder, files, lambda model: check_validated(study, model))


def check_validated(study: Study, model: TrainedModel) -> None:
    """Raise ModelError where a model is not the one that `study` is for, or is used otherwise there
    than its recipe has it."""
    expected = study.federation.validates or ""
    if model.id != expected:
        raise ModelError(
            f"this is model {model.id[:12]}; study {study.name!r} is for model {expected[:12]}, "
            "and no other one is tested in it"
        )
    check_steps(model)
    own = validation_study(model, study.data.external)
    for name in ("grid", "prepare", "quality", "net"):
        if getattr(study, name) != getattr(own, name):
            raise ModelError(
                f"study {study.name!r}: [{name}] is not that of model {model.id[:12]}; write the "
                "study anew with gliofed federation validate"
            )
    used = (own.loss.unused, own.score.mirror, own.data.synthetic)
    if (study.loss.unused, study.score.mirror, study.data.synthetic) != used:
        raise ModelError(
            f"study {study.name!r}: markers, score.mirror or data.synthetic are not those of model "
            f"{model.id[:12]}; write the study anew with gliofed federation validate"
        )
