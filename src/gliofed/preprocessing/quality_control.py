"""Compares the measures of a prepared case with the limits of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from nibabel.affines import voxel_sizes

from gliofed.study import QualityConfig
from gliofed.types import Placement, PreparationMeasures, Sequence

HEAD_MM: Final = 100
"""A scan of which a side is shorter shows less than a head; the brain of MNI152 is 140 mm wide."""


def quality_faults(
    measures: PreparationMeasures,
    limits: QualityConfig,
    placements: Mapping[Sequence, Placement],
) -> tuple[str, ...]:
    """Why a case is excluded, each reason with its cure; empty where it passes.

    Missing measures (None, or a missing sequence) are not checked. placements: of the scans, which
    tell whether a small brain is that of a scan of part of the head.
    """
    faults = []
    low, high = limits.brain_litres
    partial = _partial_heads(placements)
    if measures.brain_litres < low and partial:
        faults.append(
            f"the brain mask has {measures.brain_litres:.2f} L, expected {low:g} to {high:g} L, "
            f"since {partial}; use scans of the whole head"
        )
    elif not low <= measures.brain_litres <= high:
        faults.append(
            f"the brain mask has {measures.brain_litres:.2f} L, expected {low:g} to {high:g} L; "
            "look at its contour in the figure, provide a brain mask, or choose another method in "
            "[prepare] brain"
        )
    dice = measures.template_dice
    if dice is not None and dice < limits.template_dice:
        faults.append(
            f"the brain overlaps that of MNI152 with Dice {dice:.2f}, expected at least "
            f"{limits.template_dice:g}; check that the scan shows a complete head and that its "
            "axes are correct"
        )
    for sequence, alignment in measures.alignment.items():
        if alignment < limits.alignment:
            faults.append(
                f"{sequence.value} is not aligned with the other sequences: the mutual information "
                f"is {alignment:.2f} times that after a shift of 6 mm, expected at least "
                f"{limits.alignment:g}; check that it is of this patient, its affine, and motion"
            )
    return tuple(faults)


def _partial_heads(placements: Mapping[Sequence, Placement]) -> str:
    """The scans that cover part of a head, with their extents; empty where there are none."""
    extents = {s: np.array(p.shape) * voxel_sizes(p.affine) for s, p in placements.items()}
    return " and ".join(
        f"{s} covers {' x '.join(f'{mm:.0f}' for mm in extent)} mm, less than a head"
        for s, extent in extents.items()
        if extent.min() < HEAD_MM
    )
