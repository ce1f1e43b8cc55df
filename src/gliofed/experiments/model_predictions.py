"""Every labelled case predicted with a given model folder; predicted cases are not repeated."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gliofed.calibration.evaluation import calibrated_cases, scaling_rows
from gliofed.data.store import PreparedCase
from gliofed.errors import DataError
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult, missing_sequences
from gliofed.experiments.case_scores import score_case
from gliofed.experiments.exclusions import (
    ExcludedCase,
    excluded_rows,
    exclusion_note,
    within_quality,
)
from gliofed.experiments.fused_predictions import (
    calibrated_fused,
    fused_results,
    inputs_note,
)
from gliofed.experiments.model_runs import content_of, digest
from gliofed.experiments.predictions import CasePredictor
from gliofed.experiments.segmentation_examples import best_median_worst, example
from gliofed.experiments.validated import (
    FOLD,
    SEED,
    OwnCalibration,
    ValidatedPredictions,
    external_origin,
)
from gliofed.inference.native_grid import THRESHOLD
from gliofed.markers import BY_ID
from gliofed.models.folder import TrainedModel, check_steps
from gliofed.preprocessing.dataset import prepare_every_case
from gliofed.preprocessing.workers import PreparationRequest
from gliofed.radiomics.mask_features import mask_features
from gliofed.reporting.study.content import SegmentationExample
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.types import Case


def predict_with_model(
    model: TrainedModel, cases: Sequence[Case], folder: Path, store: Path, progress: Progress
) -> ValidatedPredictions:
    """Prepare the cases as the model needs them, and predict and score each.

    folder: of predicted cases, one file each, which a second start reads. Cases beyond the model's
    quality limits are excluded and listed. Raises ModelError for a model prepared by other steps;
    DataError where a case cannot be prepared or all are excluded.
    """
    keep_memory()
    check_steps(model)
    recipe = model.recipe
    request = PreparationRequest(recipe.grid, recipe.prepare, recipe.quality, store)
    progress.stage(f"preparing {len(cases)} cases")
    prepared = prepare_every_case(cases, request, progress)
    used, excluded = within_quality(recipe.quality, prepared)
    _check_any(used, excluded)
    machine = this_machine()
    predictor = CasePredictor(
        model.network().to(machine.device), machine, recipe.mirror, recipe.untrained
    )
    progress.stage(f"predicting {len(used)} cases")
    results: list[CaseResult] = []
    masks: dict[str, Values] = {}
    for done, scan in enumerate(used):
        progress.update(done, len(used), str(scan.case))
        result, features = _predict(model, predictor, scan, folder)
        results.append(result)
        if features is not None:
            masks[str(scan.case)] = features
    fused = fused_results(model.fusion, results, masks)
    notes = [f"{exclusion_note(excluded)}. The reasons are listed below."] if excluded else []
    notes += [inputs_note(results)] if fused else []
    return ValidatedPredictions(
        tuple(results),
        (*notes, *_notes(model)),
        _facts(model),
        complete=not excluded,
        examples=tuple(_examples(predictor, used, results)),
        excluded=excluded_rows(excluded),
        own=_own_calibration(model, results),
        fused=fused,
        fused_calibrated=calibrated_fused(model.fusion, fused),
    )


def model_name(model: TrainedModel) -> str:
    """In tables and on the page: the study's name and the start of the id."""
    return f"{model.recipe.name} {model.id[:8]}"


def _check_any(used: Sequence[PreparedCase], excluded: Sequence[ExcludedCase]) -> None:
    """Raise DataError where no case is used."""
    if not used:
        first = excluded[0]
        raise DataError(
            f"none of {len(excluded)} cases is within the quality limits of the model; "
            f"{first.case}: {'; '.join(first.reasons)}"
        )


def _predict(
    model: TrainedModel, predictor: CasePredictor, prepared: PreparedCase, folder: Path
) -> tuple[CaseResult, Values | None]:
    """One case's result, and the features of its mask for a fusion, None without one; read from the
    disk if this model predicted the case as it is now."""
    path = folder / f"{digest(model.id, content_of(prepared))}.csv"
    features = path.with_suffix(".json")
    fuses = model.fusion is not None
    if not path.exists() or (fuses and not features.exists()):
        prediction = predictor.predict(prepared)
        if fuses:
            values = mask_features(prepared, prediction.probability >= THRESHOLD).tolist()
            write_text(features, json.dumps([v if np.isfinite(v) else None for v in values]))
        result = score_case(prediction, prepared, external_origin(model_name(model)))
        write_text(path, predictions_csv([result]))
    (result,) = parse_predictions(path.read_text(), str(path))
    return result, np.array(json.loads(features.read_text()), float) if fuses else None


def _examples(
    predictor: CasePredictor, used: Sequence[PreparedCase], results: Sequence[CaseResult]
) -> Iterator[SegmentationExample]:
    """Three cases, predicted again for their masks."""
    by_name = {str(p.case): p for p in used}
    for rank, result in best_median_worst(results):
        prepared = by_name[f"{result.site}/{result.case}"]
        predicted = predictor.predict(prepared).probability >= THRESHOLD
        yield example(rank, result, prepared, predicted)


def _own_calibration(model: TrainedModel, results: Sequence[CaseResult]) -> OwnCalibration | None:
    """The model's calibration of each result, by the number of its missing sequences."""
    fewest = model.fitted_for(0)
    if fewest is None:
        return None
    answers = {
        id(r.result): r
        for count in sorted(model.calibrations)
        for r in calibrated_cases(
            model.calibrations[count],
            [r for r in results if model.fitted_for(missing_sequences(r)) == count],
        )
    }
    calibration = model.calibrations[fewest]
    return OwnCalibration(
        calibration,
        tuple(answers[id(r)] for r in results),
        tuple(scaling_rows(calibration, model_name(model), SEED, FOLD)),
    )


def _notes(model: TrainedModel) -> Iterator[str]:
    """What a reader must see of the model."""
    if model.recipe.caution:
        yield model.recipe.caution
    if model.recipe.synthetic:
        yield "The model was trained on synthetic phantoms. No figure applies to patients."
    for marker in model.recipe.untrained:
        yield f"The model does not predict {BY_ID[marker].title}: it was not trained for it."
    yield (
        "A model folder names no patient, so it cannot be verified here that none of these cases "
        "was used in its training."
    )


def _facts(model: TrainedModel) -> tuple[tuple[str, str], ...]:
    recipe = model.recipe
    return (
        ("model", model.id),
        ("trained in the study", f"{recipe.name}, digest {recipe.study[:16]}"),
        ("training rounds", f"{recipe.rounds:,}"),
        ("preparation", f"{recipe.grid.spacing_mm} mm, {recipe.prepare.space} space"),
    )
