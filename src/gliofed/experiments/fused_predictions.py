"""The results of a given model with its fusion: age, sex and its mask joined to the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from gliofed.calibration.calibrator import calibrated_result, fitted_for
from gliofed.calibration.evaluation import CALIBRATED_SUFFIX
from gliofed.calibration.fusion import Fusion, FusionInputs, known_inputs
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.results import CaseResult, missing_sequences

FUSED_SUFFIX: Final = ", with age and sex"
"""Suffix of the model's name. Without it, the results are those of the network alone."""


def fused_results(
    fusion: Fusion | None, results: Sequence[CaseResult], mask: Mapping[str, Values]
) -> tuple[CaseResult, ...]:
    """Each result of the network, fused; none without a fusion.

    mask: "site/id" to the (F,) features of the predicted mask.
    """
    if fusion is None:
        return ()
    return tuple(_fused(fusion, r, mask[f"{r.site}/{r.case}"]) for r in results)


def calibrated_fused(fusion: Fusion | None, fused: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """The fused results with the fusion's own calibration, as `gliofed predict` gives them; none
    without one."""
    out = []
    for result in fused:
        calibrations = fusion.calibrations if fusion else {}
        key = fitted_for(calibrations, missing_sequences(result))
        if key is not None:
            found = calibrated_result(calibrations[key], result)
            out.append(replace(found, model=result.model + CALIBRATED_SUFFIX))
    return tuple(out)


def inputs_note(results: Sequence[CaseResult]) -> str:
    """In how many cases age and sex were known."""
    known = [known_inputs(r.person) for r in results]
    ages, sexes = (sum(name in k for k in known) for name in ("age", "sex"))
    return (
        f"The column{FUSED_SUFFIX} joins these to the network's IDH. Of {len(results)} cases the "
        f"age is known in {ages} and the sex in {sexes}; what is unknown counts as the mean."
    )


def _fused(fusion: Fusion, result: CaseResult, mask: Values) -> CaseResult:
    own = {m: np.array([p], float) for m, p in result.probabilities.items()}
    fused = fusion.fuse(own, FusionInputs(mask[None], [result.person]))
    return replace(
        result,
        model=result.model + FUSED_SUFFIX,
        probabilities={m: tuple(p[0].tolist()) for m, p in fused.items()},
    )
