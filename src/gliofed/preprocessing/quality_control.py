"""Whether a prepared case may be used: what was measured of it, against what the study asks for."""

from __future__ import annotations

from gliofed.study import QualityConfig
from gliofed.types import PreparationMeasures


def quality_faults(measures: PreparationMeasures, asked: QualityConfig) -> tuple[str, ...]:
    """Why a case is set aside, each with a cure; empty where it is sound.

    A measure that was not taken (None, or a sequence that is not there) is not held against it.
    """
    found = []
    low, high = asked.brain_litres
    if not low <= measures.brain_litres <= high:
        found.append(
            f"the brain mask has {measures.brain_litres:.2f} L, expected {low:g} to {high:g} L; "
            "look at its outline in the figure, give a brain mask, or name another way in "
            "[prepare] brain"
        )
    dice = measures.template_dice
    if dice is not None and dice < asked.template_dice:
        found.append(
            f"the brain overlaps that of MNI152 with Dice {dice:.2f}, expected at least "
            f"{asked.template_dice:g}; check that the scan shows a whole head and that its axes "
            "are right"
        )
    for sequence, alignment in measures.alignment.items():
        if alignment < asked.alignment:
            found.append(
                f"{sequence.value} does not lie on the reference: it tells {alignment:.2f} times "
                f"as much of it there as 6 mm away, expected at least {asked.alignment:g}; check "
                "that it is of this patient, its affine, and motion"
            )
    return tuple(found)
