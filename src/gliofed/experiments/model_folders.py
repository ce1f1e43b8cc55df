"""The trained models of a finished run, each exported as a folder with its calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from gliofed.calibration.calibrator import Calibration
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.model_runs import ModelRun, TrainedModelRun
from gliofed.experiments.sequence_ablation import WITHOUT, calibrations_by_missing
from gliofed.models.folder import add_fusion, recipe_of, write_model
from gliofed.models.recipe import ModelRecipe

MODEL: Final = "model"
"""The folder of an exported model, within that of its training."""


def write_models(finished: FinishedRun, card: str) -> tuple[Path, ...]:
    """Write one folder for each seed and fold of the reference model, and for each personal model.

    card: the model card of the reference model, in Markdown. Without calibration cases, a model is
    written without a calibration; personal models have neither. Raises ModelError and OSError.
    """
    context, scored = finished.context, finished.scored
    calibrations = scored.calibration.calibrations if scored.calibration else {}
    folders = []
    for folder, trained in zip(reference_folders(finished), _references(finished), strict=True):
        run, state = trained.run, trained.state
        key = (run.seed, run.split.fold)
        by_missing: Mapping[int, Calibration] = {}
        if key in calibrations:
            results = _results_of(scored.results, key, scored.reference)
            dropped = _results_of(finished.without_sequences, key, scored.reference)
            by_missing = calibrations_by_missing(calibrations[key], results, dropped)
        untrained = run.untrained(context.study, context.prepared)
        study = run.effective_study(context.study)
        caution = context.caution if study.init else ""
        recipe = recipe_of(study, state.run, state.rounds, untrained, caution)
        id_ = write_model(folder, recipe, state.weights, by_missing, lambda _: card)
        if run.model == finished.fusions.network:
            fusion = finished.fusions.fusion(key, context.study.calibration)
            id_ = add_fusion(folder, fusion) if fusion else id_
        folders += [folder, *_write_personal(finished, run, recipe, id_)]
    return tuple(folders)


def reference_folders(finished: FinishedRun) -> tuple[Path, ...]:
    """The folder of each exported model of the reference, one for each seed and fold."""
    return tuple(t.run.folder(finished.context.out) / MODEL for t in _references(finished))


def _references(finished: FinishedRun) -> tuple[TrainedModelRun, ...]:
    return tuple(t for t in finished.trained if t.run.model == finished.scored.reference)


def _write_personal(
    finished: FinishedRun, base: ModelRun, recipe: ModelRecipe, id_: str
) -> list[Path]:
    """The models that began with `base`. recipe, id_: of its folder."""
    folders = []
    for run, state in ((t.run, t.state) for t in finished.trained if t.run.base == base):
        folder = run.folder(finished.context.out) / MODEL
        own = replace(recipe, run=state.run, rounds=state.rounds, base=id_)
        write_model(folder, own, state.weights, {}, lambda _: "")
        folders.append(folder)
    return folders


def _results_of(
    results: Iterable[CaseResult], key: tuple[int, str], model: str
) -> list[CaseResult]:
    """The results of one seed and fold of a model, also those with sequences dropped."""
    return [
        r for r in results if (r.seed, r.fold) == key and r.model.partition(WITHOUT)[0] == model
    ]
