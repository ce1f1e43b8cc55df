"""One case answered: calibrated, with how the answer swings, and what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
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
)
from gliofed.calibration.segmentation_uncertainty import ensemble_uncertainty
from gliofed.calibration.site_statistics import local_exchange
from gliofed.data.store import PreparedCase
from gliofed.errors import ModelError
from gliofed.inference.answer_files import CaseAnswer, sequence_images
from gliofed.inference.forward import (
    DROPOUT_SAMPLES,
    PredictionUncertainty,
    predict_with_uncertainty,
)
from gliofed.inference.native_grid import THRESHOLD, scan_volume_ratio
from gliofed.inference.occlusion import explain, plan_occlusion
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.folder import TrainedModel
from gliofed.models.network import MultiTaskNet
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.reporting.case.content import AnsweringModel, CaseContent, MarkerAnswer, Occlusion
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import CalibrationConfig
from gliofed.types import SEQUENCES, Prediction

INTERVAL_PERCENTILES: Final = (2.5, 97.5)
"""Percentiles of the draws that are shown as their range."""


def answer_case(
    model: TrainedModel,
    net: MultiTaskNet,
    prepared: PreparedCase,
    machine: Device,
    explained: bool = False,
    progress: Progress = NO_PROGRESS,
) -> CaseAnswer:
    """net: `model.net()` on the machine's device.

    explained: whether to find what each marker's answer rests on; progress: counts the passes of
    that. Raises ModelError where an answer is not finite.
    """
    found, doubt = predict_with_uncertainty(net, prepared, machine, model.recipe.mirror)
    _check_finite(found, doubt, model, prepared)
    spread = ensemble_uncertainty(
        doubt.maps, np.linalg.norm(found.affine[:3, :3], axis=0), THRESHOLD
    )
    there = dict(zip(SEQUENCES, prepared.present, strict=True))
    missing = list(there.values()).count(False)
    count = model.fitted_for(missing)
    own = (
        fit_calibration(local_exchange({}), CalibrationConfig())
        if count is None
        else model.calibrations[count]
    )
    told = apply_to_case(own, found.markers)
    whys, method = (
        ((), "") if not explained else _whys(net, prepared, machine, told, found, progress)
    )
    swings, scale = len(doubt.maps) > 1, scan_volume_ratio(prepared)
    span = spread.volume_range_ml
    return CaseAnswer(
        found,
        CaseContent(
            case=prepared.case.id,
            source=_source(model, missing),
            images=sequence_images(prepared),
            affine=found.affine,
            space=model.recipe.prepare.space,
            probability=found.probability,
            deviation=spread.deviation if swings else None,
            volume_ml=spread.volume_ml * scale,
            volume_range_ml=(span[0] * scale, span[1] * scale) if span else None,
            passes="2 passes: as scanned and mirrored" if swings else "",
            draws=_draws(swings),
            markers=_shown(told, own, doubt, calibrated=count is not None),
            integrated=told.integrated,
            whys=whys,
            explained=method,
            quality=quality_faults(prepared.measures, model.recipe.quality),
            missing=tuple(s for s in SEQUENCES if not there[s]),
            written=date.today().isoformat(),
        ),
    )


def _check_finite(
    found: Prediction, doubt: PredictionUncertainty, model: TrainedModel, prepared: PreparedCase
) -> None:
    own = np.concatenate([np.array(v) for v in found.markers.values()])
    if not all(np.isfinite(n).all() for n in (own, *doubt.maps, *doubt.markers.values())):
        raise ModelError(
            f"{prepared.case.id}: model {model.id[:12]} gives answers that are no numbers; look at "
            "the prepared scans (`gliofed export --image`), or take another model"
        )


def _whys(
    net: MultiTaskNet, prepared: PreparedCase, machine: Device, told: CalibratedPrediction, found: Prediction,
    progress: Progress,
) -> tuple[tuple[Occlusion, ...], str]:  # fmt: skip
    """What the likeliest class of each marker rests on, and a sentence on how that was found.

    Of the scan as it is: twice the passes for the mirrored one would leave coarser blocks.
    """
    plan = plan_occlusion(prepared, found.probability >= THRESHOLD, mirror=False)
    of = {m: BY_ID[m].classes[int(np.argmax(chances))] for m, chances in told.probabilities.items()}
    whys = explain(net, prepared, machine, plan, of, progress)
    return whys, (
        f"Of the likeliest class of each marker. {len(plan.corners)} blocks of "
        f"{plan.block_mm:.0f} mm a side and {len(plan.sequences)} whole sequences were hidden, one "
        "at a time, and the network asked again, of the scan as it is; changes are of its own "
        "probability, before calibration."
    )


def _draws(mirrored: bool) -> str:
    half = ", half of them of the mirrored scan" if mirrored else ""
    return (
        f"the middle 95 % of {DROPOUT_SAMPLES} answers with dropout at work in the network's heads{half}, "
        "each calibrated as the answer is"
    )


def _shown(
    told: CalibratedPrediction, own: Calibration, doubt: PredictionUncertainty, calibrated: bool
) -> tuple[MarkerAnswer, ...]:
    """Of every marker; draws are calibrated each for itself, as the answer is."""
    drawn = apply_calibration(own, doubt.markers)
    out = []
    for marker in MARKERS:
        many = np.array([a.probabilities[marker.id] for a in drawn], float)
        low, high = _range(many)
        out.append(
            MarkerAnswer(
                marker.id, told.probabilities[marker.id], low, high,
                told.sets[marker.id] if calibrated else None,
                told.kept[marker.id] if calibrated else None,
            )
        )  # fmt: skip
    return tuple(out)


def _range(many: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    low, high = np.percentile(many, INTERVAL_PERCENTILES, axis=0)
    return tuple(low.tolist()), tuple(high.tolist())


def _source(model: TrainedModel, missing: int) -> AnsweringModel:
    """missing: how many sequences the case lacks."""
    own = model.recipe
    return AnsweringModel(
        name=own.name,
        id=model.id,
        trained=f"{own.rounds} rounds of the study {own.name}, run {own.run}",
        tested="see the model's card",
        calibrated=_calibrated(model, missing),
        synthetic=own.synthetic,
    )


def _calibrated(model: TrainedModel, missing: int) -> str:
    """On how many cases; empty without a calibration."""
    count = model.fitted_for(missing)
    if count is None:
        return ""
    fitted = model.calibrations[count]
    on = "; ".join(_cases(fitted, m.id) for m in MARKERS)
    if count >= missing:
        return f"on {on}"
    return (
        f"on {on}. These cases lacked at most {count} of the four sequences and this one lacks "
        f"{missing}: its probabilities may be too sure, and its sets too small"
    )


def _cases(calibration: Calibration, marker: str) -> str:
    """How many cases of each class a marker was calibrated on."""
    names = BY_ID[marker]
    counts: Mapping[str, int] = dict(zip(names.classes, calibration.sets[marker].n, strict=True))
    return f"{names.title}: " + ", ".join(f"{c} ({n})" for c, n in counts.items())
