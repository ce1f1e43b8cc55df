"""Compares the measures of a prepared case with the limits of a study."""

from __future__ import annotations

from gliofed.study import QualityConfig
from gliofed.types import PreparationMeasures


def quality_faults(measures: PreparationMeasures, limits: QualityConfig) -> tuple[str, ...]:
    """Why a case is excluded, each reason with its cure; empty where it passes.

    Missing measures (None, or a missing sequence) are not checked.
    """
    faults = []
    low, high = limits.brain_litres
    if not low <= measures.brain_litres <= high:
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
                f"{sequence.value} is not aligned with the reference: their mutual information is "
                f"{alignment:.2f} times that after a shift of 6 mm, expected at least "
                f"{limits.alignment:g}; check that it is of this patient, its affine, and motion"
            )
    return tuple(faults)
