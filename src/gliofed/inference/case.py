"""One case predicted: calibrated, with its uncertainty and, if wanted, its occlusion maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, replace
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.calibrator import (
    CalibratedPrediction,
    Calibration,
    apply_calibration,
    apply_to_case,
    fit_calibration,
    fitted_for,
)
from gliofed.calibration.cns5 import NOT_DETERMINABLE, IntegratedType
from gliofed.calibration.fusion import Fusion, FusionInputs
from gliofed.calibration.joint_decision import JOINT
from gliofed.calibration.marker_answer import MarkerAnswer
from gliofed.calibration.segmentation_uncertainty import ensemble_uncertainty
from gliofed.calibration.site_statistics import local_exchange
from gliofed.data.store import PreparedCase
from gliofed.errors import ModelError
from gliofed.inference.answer import CalibrationUsed, CaseAnswer, ModelIdentity, OcclusionResult
from gliofed.inference.forward import (
    DROPOUT_SAMPLES,
    DeviceNetwork,
    PredictionUncertainty,
    drop_sequences,
    predict_with_uncertainty,
    without_untrained,
)
from gliofed.inference.native_grid import THRESHOLD, scan_volume_ratio
from gliofed.inference.occlusion import explain, plan_occlusion
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.folder import TrainedModel
from gliofed.radiomics.mask_features import mask_features
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import CalibrationConfig
from gliofed.types import SEQUENCES, Prediction, Sequence

INTERVAL_PERCENTILES: Final = (2.5, 97.5)
"""Percentiles of the dropout samples, the interval of a marker's probability."""


def answer_case(
    model: TrainedModel,
    network: DeviceNetwork,
    prepared: PreparedCase,
    explained: bool = False,
    progress: Progress = NO_PROGRESS,
) -> CaseAnswer:
    """Predict one prepared case with a model.

    network: `model.network()` on its device. explained: whether to compute occlusion maps.
    progress: counts the passes of the network that these need. Raises ModelError where a prediction
    is not finite, or the model was trained with none of the case's sequences.
    """
    missing, unused = _left_out(model, prepared)
    scanned, prepared = prepared, drop_sequences(prepared, frozenset(unused))
    prediction, uncertainty = predict_with_uncertainty(
        network.net, prepared, network.machine, model.recipe.mirror
    )
    _check_finite(prediction, uncertainty, model, prepared)
    untrained = model.recipe.untrained
    prediction = without_untrained(prediction, untrained)
    spacing = np.linalg.norm(prediction.affine[:3, :3], axis=0)
    without = len(missing) + len(unused)
    calibrations = model.fusion.calibrations if model.fusion else model.calibrations
    count = fitted_for(calibrations, without)
    calibration = calibrations[count] if count is not None else _no_calibration()
    joined = _joined(model.fusion, prepared, prediction, uncertainty)
    calibrated = apply_to_case(calibration, joined.prediction)
    markers = _markers(calibrated, prediction, _intervals(calibration, joined.samples))
    if count is None:
        markers = tuple(_without_calibration(m) for m in markers)
    markers = tuple(_not_trained(m) if m.marker in untrained else m for m in markers)
    return CaseAnswer(
        case=prepared.case.id,
        model=_identity(model, calibrations, without),
        space=model.recipe.prepare.space,
        prediction=prediction,
        segmentation=ensemble_uncertainty(uncertainty.maps, spacing, THRESHOLD),
        volume_scale=scan_volume_ratio(scanned),
        markers=markers,
        dropout_samples=DROPOUT_SAMPLES,
        integrated=_integrated(calibrated.integrated_type, untrained),
        occlusion=_occlusion(network, prepared, prediction, markers, progress)
        if explained
        else None,
        measures=prepared.measures,
        limits=model.recipe.quality,
        missing=missing,
        unused=unused,
        day=date.today(),
        person=prepared.case.person,
        fused=() if model.fusion is None else tuple(model.fusion.markers),
    )


@dataclass(frozen=True)
class _Joined:
    """Probabilities to calibrate, by marker id. prediction: of each class. samples: (samples,
    classes)."""

    prediction: Mapping[str, tuple[float, ...]]
    samples: Mapping[str, NDArray[np.float64]]


def _joined(
    fusion: Fusion | None,
    prepared: PreparedCase,
    prediction: Prediction,
    uncertainty: PredictionUncertainty,
) -> _Joined:
    """The network's probabilities, fused with the features of its mask, age and sex."""
    if fusion is None:
        return _Joined(prediction.markers, uncertainty.markers)
    features = mask_features(prepared, prediction.probability >= THRESHOLD)
    inputs = FusionInputs(features[None], [prepared.case.person])
    own = {m: np.array([p], float) for m, p in prediction.markers.items()}
    fused = {m: tuple(p[0].tolist()) for m, p in fusion.fuse(own, inputs).items()}
    return _Joined(fused, fusion.fuse(uncertainty.markers, inputs))


def _left_out(
    model: TrainedModel, prepared: PreparedCase
) -> tuple[tuple[Sequence, ...], tuple[Sequence, ...]]:
    """The missing sequences, and those that the network was not trained with. Raises ModelError."""
    scanned = {s for s, has in zip(SEQUENCES, prepared.present, strict=True) if has}
    unknown = set(model.untrained_sequences)
    if scanned <= unknown:
        known = ", ".join(s for s in SEQUENCES if s not in unknown)
        raise ModelError(
            f"{prepared.case.id}: has {', '.join(s for s in SEQUENCES if s in scanned)} and the "
            f"model was trained with {known} only; add one of these scans, or take another model"
        )
    return (
        tuple(s for s in SEQUENCES if s not in scanned),
        tuple(s for s in SEQUENCES if s in scanned & unknown),
    )


def _check_finite(
    prediction: Prediction,
    uncertainty: PredictionUncertainty,
    model: TrainedModel,
    prepared: PreparedCase,
) -> None:
    markers = np.concatenate([np.array(v) for v in prediction.markers.values()])
    arrays = (markers, *uncertainty.maps, *uncertainty.markers.values())
    if not all(np.isfinite(values).all() for values in arrays):
        raise ModelError(
            f"{prepared.case.id}: model {model.id[:12]} predicts values that are not finite; look "
            "at the prepared scans (`gliofed export --image`), or take another model"
        )


def _occlusion(
    network: DeviceNetwork,
    prepared: PreparedCase,
    prediction: Prediction,
    markers: Ordered[MarkerAnswer],
    progress: Progress,
) -> OcclusionResult:
    """Occlusion of the most probable class of each marker that was trained.

    Without mirrored passes, which would require larger blocks.
    """
    plan = plan_occlusion(prepared, prediction.probability >= THRESHOLD, mirror=False)
    classes = {
        m.marker: BY_ID[m.marker].classes[int(np.argmax(m.probabilities))]
        for m in markers
        if m.trained
    }
    return OcclusionResult(
        plan.block_mm,
        len(plan.corners),
        len(plan.sequences),
        explain(network, prepared, plan, classes, progress),
    )


def _no_calibration() -> Calibration:
    """The calibration that only makes the markers consistent with each other."""
    return fit_calibration(local_exchange({}), CalibrationConfig())


def _intervals(
    calibration: Calibration, samples: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """By marker, (2, classes): bounds over the samples, each calibrated like the prediction."""
    found = apply_calibration(calibration, samples)
    return {
        m.id: np.percentile(
            np.array([s.probabilities[m.id] for s in found], float), INTERVAL_PERCENTILES, axis=0
        )
        for m in MARKERS
    }


def _markers(
    calibrated: CalibratedPrediction,
    prediction: Prediction,
    intervals: dict[str, NDArray[np.float64]],
) -> tuple[MarkerAnswer, ...]:
    return tuple(
        MarkerAnswer(
            marker=m.id,
            probabilities=calibrated.probabilities[m.id],
            low=tuple(intervals[m.id][0].tolist()),
            high=tuple(intervals[m.id][1].tolist()),
            prediction_set=calibrated.sets[m.id],
            confident=calibrated.accepted[m.id],
            uncalibrated=prediction.markers[m.id],
        )
        for m in MARKERS
    )


def _without_calibration(marker: MarkerAnswer) -> MarkerAnswer:
    return replace(marker, prediction_set=None, confident=None)


def _not_trained(marker: MarkerAnswer) -> MarkerAnswer:
    nothing = (math.nan,) * len(marker.probabilities)
    return MarkerAnswer(marker.marker, nothing, None, None, None, None, nothing, trained=False)


def _integrated(found: IntegratedType, untrained: Ordered[str]) -> IntegratedType:
    """Not determinable where one of its markers was not trained."""
    lacking = [BY_ID[m].title for m in JOINT if m in untrained]
    if not lacking:
        return found
    reason = f"the model is not trained for {' and '.join(lacking)}"
    return replace(found, answer=NOT_DETERMINABLE, probabilities=None, reason=reason)


def _identity(
    model: TrainedModel, calibrations: Mapping[int, Calibration], missing: int
) -> ModelIdentity:
    """calibrations: of which one was used. missing: number of missing sequences."""
    recipe, count = model.recipe, fitted_for(calibrations, missing)
    used = None
    if count is not None:
        sets = calibrations[count].sets
        counts = {m.id: dict(zip(m.classes, sets[m.id].n, strict=True)) for m in MARKERS}
        used = CalibrationUsed(count, missing, counts)
    return ModelIdentity(
        model.id,
        recipe.name,
        recipe.run,
        recipe.rounds,
        recipe.synthetic,
        used,
        recipe.prepare.brain,
    )
