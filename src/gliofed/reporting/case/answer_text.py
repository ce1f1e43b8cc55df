"""Sentences on how a case's prediction was computed, for its page and its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from gliofed.calibration.fusion import INPUTS
from gliofed.markers import BY_ID, MARKERS
from gliofed.study import BrainMaskSource
from gliofed.types import Sequence

TESTED: Final = "see the model's card"
NO_BRAIN: Final = "no region was occluded: the case has no brain voxel"
FEW_SEQUENCES: Final = "no sequence was dropped: at most one is present"
NOT_FINITE: Final = "not explained: the network's probability is not finite"
REGION_NOT_FINITE: Final = "no map: with some region occluded, the probability is not finite"
SEQUENCE_NOT_FINITE: Final = "without {}, the probability is not finite"


def passes(mirrored: bool) -> str:
    """The passes behind the spread of the segmentation; empty with one pass."""
    return "2 passes: as scanned and mirrored" if mirrored else ""


def intervals(samples: int, mirrored: bool) -> str:
    """The definition of the intervals of the markers' probabilities."""
    half = ", half of them of the mirrored scan" if mirrored else ""
    return (
        f"the central 95 % of {samples} samples with dropout active in the network's heads{half}, "
        "each calibrated as the probability is"
    )


def training(study: str, run: str, rounds: int, brain: BrainMaskSource) -> str:
    """How the model was trained, and on what input."""
    return f"{rounds} rounds of the study {study}, run {run}, on {model_input(brain)}"


def model_input(brain: BrainMaskSource) -> str:
    """The scans that a model was trained for. brain: its `[prepare] brain`."""
    return {
        "auto": "skull-stripped scans, and whole heads whose brain deepbet extracts",
        "stripped": "skull-stripped scans; the brain of a whole head is extracted with deepbet",
        "given": "scans with a brain mask",
        "deepbet": "whole heads, whose brain deepbet extracts",
        "hd-bet": "whole heads, whose brain HD-BET extracts",
    }[brain]


def left_out_sequences(
    missing: tuple[Sequence, ...], unused: tuple[Sequence, ...]
) -> tuple[str, ...]:
    """Sentences on scanned sequences that the model was not trained with, and on a segmentation
    without the sequences that define it; may be empty."""
    texts = []
    if unused:
        them = "it" if len(unused) == 1 else "them"
        texts.append(
            f"Not used: {', '.join(unused)}, since no training case of the model had {them}"
        )
    if {Sequence.T2, Sequence.FLAIR} <= {*missing, *unused}:
        texts.append(
            "Neither T2 nor FLAIR was used: the segmentation is not that of the "
            "T2/FLAIR-hyperintense region"
        )
    return tuple(texts)


def inputs(markers: tuple[str, ...], known: Mapping[str, str]) -> str:
    """Which inputs gave the fused markers. known: value of each of "age" and "sex" that is known.
    Empty for a model without a fusion."""
    if not markers:
        return ""
    titles = " and ".join(BY_ID[m].title for m in markers)
    if not known:
        return f"{titles}: from the scans alone; age and sex are unknown."
    given = " and ".join(f"{name} {value}" for name, value in known.items())
    unknown = [name for name in INPUTS if name not in known]
    rest = f"; {unknown[0]} is unknown and counts as the mean" if unknown else ""
    return f"{titles}: from the scans, {given}{rest}."


def calibration(
    counts: Mapping[str, Mapping[str, int]], max_missing: int, case_missing: int
) -> str:
    """The calibration cases of the model, and a warning if this case lacks more sequences.

    counts: calibration cases by marker id and class. max_missing: largest number of sequences
    missing in these cases; case_missing: number missing in this one.
    """
    fitted = "; ".join(
        f"{m.title}: " + ", ".join(f"{name} ({n})" for name, n in counts[m.id].items())
        for m in MARKERS
    )
    if max_missing >= case_missing:
        return f"on {fitted}"
    return (
        f"on {fitted}. These cases lacked at most {max_missing} of the four sequences and this one "
        f"lacks {case_missing}: its probabilities may be too extreme, and its sets too small"
    )


def occlusion_method(blocks: int, block_mm: float, sequences: int) -> str:
    """How a case's occlusion maps were computed."""
    return (
        f"Each marker's most probable class is explained. {blocks} blocks with sides "
        f"of {block_mm:.0f} mm were occluded and {sequences} sequences dropped in turn, and the "
        "network was run again on the scan without mirroring. Changes are of the network's own "
        "probability, before calibration."
    )


def occlusion_gaps(
    finite: bool, blocks: int, has_map: bool, sequences: Mapping[Sequence, float]
) -> tuple[str, ...]:
    """A sentence for each part of one marker's occlusion that is absent, with the reason.

    finite: whether the network's own probability is finite. blocks: number occluded. sequences: the
    fall without each; empty if none was dropped.
    """
    if not finite:
        return (NOT_FINITE,)
    gaps = []
    if not blocks:
        gaps.append(NO_BRAIN)
    elif not has_map:
        gaps.append(REGION_NOT_FINITE)
    if not sequences:
        gaps.append(FEW_SEQUENCES)
    gaps += [
        SEQUENCE_NOT_FINITE.format(s) for s, fall in sequences.items() if not math.isfinite(fall)
    ]
    return tuple(gaps)
