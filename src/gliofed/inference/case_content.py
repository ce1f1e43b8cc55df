"""Contents of a case's page and of its file, from its prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gliofed.calibration.fusion import known_inputs
from gliofed.data.store import PreparedCase
from gliofed.inference.answer import CaseAnswer, MarkerOcclusion, ModelIdentity, OcclusionResult
from gliofed.inference.mask_export import ExportedMask
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.preprocessing.recipe import MASKED_ON
from gliofed.reporting.case import answer_text
from gliofed.reporting.case.content import CaseContent, ModelDescription, Occlusion
from gliofed.types import SEQUENCES, Sequence


def content_of(
    answer: CaseAnswer, prepared: PreparedCase, warnings: tuple[str, ...] = ()
) -> CaseContent:
    """The contents of a case's page, with the prepared images. warnings: of the checks before the
    preparation, each a sentence with a cure."""
    spread, scale = answer.segmentation, answer.volume_scale
    mirrored = len(spread.volumes_ml) > 1
    bounds = spread.volume_range_ml
    occlusion = answer.occlusion
    return CaseContent(
        case=answer.case,
        source=_model(answer.model),
        images=sequence_images(prepared),
        affine=answer.prediction.affine,
        space=answer.space,
        probability=answer.prediction.probability,
        deviation=spread.deviation if mirrored else None,
        volume_ml=spread.volume_ml * scale,
        volume_range_ml=_range(
            (bounds[0] * scale, bounds[1] * scale) if bounds else None, spread.volume_ml * scale
        ),
        passes=answer_text.passes(mirrored),
        intervals=answer_text.intervals(answer.dropout_samples, mirrored),
        markers=answer.markers,
        integrated=answer.integrated,
        occlusions=()
        if occlusion is None
        else tuple(_occlusion(marker, occlusion) for marker in occlusion.markers),
        occlusion_method=""
        if occlusion is None
        else answer_text.occlusion_method(
            occlusion.blocks, occlusion.block_mm, occlusion.sequences
        ),
        quality=(
            *answer_text.left_out_sequences(answer.missing, answer.unused),
            *quality_faults(answer.measures, answer.limits, prepared.placements),
            *warnings,
        ),
        missing=answer.missing,
        unused=answer.unused,
        written=answer.day.isoformat(),
        inputs=answer_text.inputs(answer.fused, known_inputs(answer.person)),
        person=known_inputs(answer.person) if answer.fused else {},
    )


def with_scan_volume(content: CaseContent, files: Iterable[ExportedMask]) -> CaseContent:
    """With the volume of the mask file on the scan that the DICOM report is of, so that page, table
    and report state one; the range is widened to hold it."""
    volumes = {f.sequence: f.volume_ml for f in files if f.kind == "NIfTI"}
    volume = next(volumes[s] for s in MASKED_ON if s in volumes)
    bounds = _range(content.volume_range_ml, volume)
    return replace(content, volume_ml=volume, volume_range_ml=bounds)


def _range(bounds: tuple[float, float] | None, volume: float) -> tuple[float, float] | None:
    return None if bounds is None else (min(bounds[0], volume), max(bounds[1], volume))


def sequence_images(prepared: PreparedCase) -> Mapping[Sequence, NDArray[np.float32]]:
    """The sequences that are present, (X, Y, Z) each."""
    return {
        s: prepared.image[i].astype(np.float32)
        for i, s in enumerate(SEQUENCES)
        if prepared.present[i]
    }


def _model(model: ModelIdentity) -> ModelDescription:
    used = model.calibration
    return ModelDescription(
        name=model.name,
        id=model.id,
        trained=answer_text.training(model.name, model.run, model.rounds, model.brain),
        tested=answer_text.TESTED,
        calibrated=""
        if used is None
        else answer_text.calibration(used.counts, used.max_missing, used.case_missing),
        synthetic=model.synthetic,
    )


def _occlusion(marker: MarkerOcclusion, result: OcclusionResult) -> Occlusion:
    finite = math.isfinite(marker.probability)
    return Occlusion(
        marker.marker,
        marker.class_name,
        marker.probability if finite else None,
        result.block_mm,
        marker.regions,
        {s: fall for s, fall in marker.sequences.items() if math.isfinite(fall)},
        answer_text.occlusion_gaps(
            finite, result.blocks, marker.regions is not None, marker.sequences
        ),
    )
