"""How much of a brain a training sample holds, since predictions are of whole brains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from gliofed.data.store import PreparedCase

LEAST: Final = 0.8
"""Smallest part of the median brain's box below which a note is due."""
_STEP: Final = 16
"""Voxels to which a suggested side is rounded up: the networks halve it four times."""


def patch_note(patch: tuple[int, int, int], prepared: Sequence[PreparedCase]) -> str:
    """What to know where training samples of `patch` voxels are smaller than the median brain.

    Empty where they hold at least `LEAST` of its box, or without cases.
    """
    if not prepared:
        return ""
    brain = np.median([case.image.shape[1:] for case in prepared], axis=0).tolist()
    held = math.prod(min(1.0, side / full) for side, full in zip(patch, brain, strict=True))
    if held >= LEAST:
        return ""
    whole = [_STEP * math.ceil(side / _STEP) for side in brain]
    return (
        f"A training sample ({_size(patch)} voxels) holds {held:.0%} of the median brain "
        f"({_size(brain)}), but predictions are of complete brains. The network normalises over "
        "all that it is given, so it may mark far too much. Set grid.patch to at least "
        f"{whole}, or a coarser grid.spacing_mm; or train on from this run's model on such samples "
        "([init])."
    )


def _size(sides: Sequence[float]) -> str:
    return " x ".join(f"{side:.0f}" for side in sides)
