"""Single cases for a page: the best, the median and the worst segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.evaluation.results import CaseResult
from gliofed.reporting.plots.planes import PLANES, aspect, largest_section, slice_of
from gliofed.reporting.study.content import ExamplePlane, SegmentationExample


def best_median_worst(results: Sequence[CaseResult]) -> Iterator[tuple[str, CaseResult]]:
    """The rank and the result of three cases by Dice; none where no result has one."""
    scored = [r for r in results if r.dice is not None]
    ranked = sorted(scored, key=lambda r: (r.dice, r.case))
    if ranked:
        for rank, index in (("best", -1), ("median", len(ranked) // 2), ("worst", 0)):
            yield rank, ranked[index]


def example(
    rank: str, result: CaseResult, prepared: PreparedCase, predicted: NDArray[np.bool_]
) -> SegmentationExample:
    """One case's planes. predicted: the mask (X, Y, Z) on the prepared (RAS) grid. The result has a
    Dice."""
    assert result.dice is not None
    name = f"{result.site}/{result.case}"
    planes = _planes(prepared, predicted)
    return SegmentationExample(rank, name, result.model, result.dice, planes)


def _planes(prepared: PreparedCase, predicted: NDArray[np.bool_]) -> tuple[ExamplePlane, ...]:
    """Axial, coronal and sagittal slices where the tumour is largest, turned radiologically.

    predicted: the mask on the prepared (RAS) grid.
    """
    expert = np.zeros(predicted.shape, bool) if prepared.mask is None else prepared.mask > 0
    # FLAIR if scanned, else the last sequence that was
    channel = max(i for i, scanned in enumerate(prepared.present) if scanned)
    image = prepared.image[channel].astype(np.float32)
    low, high = np.percentile(image[image != 0], [1, 99.5])
    grey = np.where(image == 0, 0, np.clip((image - low) / max(high - low, 1e-6), 0, 1))
    tumour = expert | predicted
    if not tumour.any():
        tumour = np.ones(predicted.shape, bool)
    at = largest_section(tumour)
    return tuple(
        (
            name,
            slice_of(grey, name, at).astype(np.float32),
            slice_of(expert, name, at),
            slice_of(predicted, name, at),
            aspect(prepared.affine, name),
        )
        for name in PLANES
    )
