"""A model at a hospital: checked, kept in the kit, tested on its own cases, taken out.

It is the finished model of a run, or the given one of a validation.

    KIT/gliofed/work/RUN/model/              the model folder, as at the server
    KIT/gliofed/work/RUN/own-scores.json     its scores on the hospital's own test cases

The scores stay here: they are not sent, and counts are not hidden in them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.deployment.kit import Kit, open_kit
from gliofed.deployment.training_job import TrainingJob
from gliofed.deployment.validated_model import check_validated
from gliofed.errors import ModelError
from gliofed.evaluation.results import ScoreRow
from gliofed.federated.governance.approval import parse_study_text
from gliofed.federated.model_delivery import ModelRequest
from gliofed.models.folder import RECORD, TrainedModel, model_files, place_model, read_model
from gliofed.runtime.files import write_private
from gliofed.study import Study

MODEL: Final = "model"
SCORES: Final = "own-scores.json"


@dataclass(frozen=True)
class FetchedModel:
    """A model that was taken out of a kit. scores: on the hospital's own test cases; empty without
    such cases."""

    model: TrainedModel
    scores: tuple[ScoreRow, ...]


def keep_model(request: ModelRequest, job: TrainingJob, folder: Path) -> TrainedModel:
    """Write a model that was sent into `folder`, of its run, in one step.

    Raises ModelError where a file is missing, added or damaged, or the model is not that of the
    job: `folder` is then as it was. The model of a validation is that of the approved study.
    """
    study = parse_study_text(job.study)

    def check(model: TrainedModel) -> None:
        if study.federation.validates:
            check_validated(study, model)
            return
        expected, own = (request.model, job.run, job.digest), model.recipe
        if (model.id, own.run, own.study) != expected:
            raise ModelError(
                f"the model that was sent is {model.id[:12]} of run {own.run}; it was announced as "
                f"{request.model[:12]} of run {job.run}, and it was not kept"
            )

    return place_model(folder / MODEL, request.files, check)


def read_approved_model(study: Study, folder: Path) -> TrainedModel:
    """The model that `folder`, of a validation, holds.

    Raises ModelError where none was received, or it is not that of the study.
    """
    model = read_model(folder / MODEL)
    check_validated(study, model)
    return model


def write_scores(folder: Path, rows: Sequence[ScoreRow]) -> None:
    """Write the scores on the hospital's own cases into `folder`, of the run."""
    plain = [dataclasses.asdict(row) for row in rows]
    write_private(folder / SCORES, json.dumps(plain, indent=1))


def read_scores(folder: Path) -> tuple[ScoreRow, ...]:
    """The scores in `folder`; none where there is no file of them. Raises ModelError: damaged."""
    path = folder / SCORES
    try:
        return tuple(ScoreRow(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path}: damaged ({error}); delete this file") from None


def fetch_model(kit: Path, out: Path) -> FetchedModel:
    """Write the newest model that a hospital's kit has received to the folder `out`, in one step.

    Raises KitError; ModelError where no model was received, one is damaged, or `out` exists and is
    not a model.
    """
    run = _newest(open_kit(kit, "site"))
    _, files = model_files(run / MODEL)
    return FetchedModel(place_model(out, files), read_scores(run))


def _newest(kit: Kit) -> Path:
    """The folder of the run whose model was received last."""
    found = sorted(kit.work.glob(f"*/{MODEL}/{RECORD}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise ModelError(
            f"{kit.root}: has received no model. A hospital receives it at the end of a run of a "
            "study with federation.share_model = true, or at the beginning of a validation, while "
            "gliofed join runs. If the run is complete, let gliofed join run, and ask the lead to "
            "run gliofed start once more"
        )
    read_model(found[-1].parent)
    return found[-1].parents[1]
