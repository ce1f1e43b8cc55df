"""Compares the pixels of T1 and T1CE with what their headers state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gliofed.data.enhancement import contradicts, enhancement_score
from gliofed.data.nifti import read_nifti
from gliofed.ingest.contrast_evidence import CONFLICT
from gliofed.ingest.plan import SeriesPlan, SeriesStatus, StudyPlan
from gliofed.types import Sequence

CONTRASTS = (Sequence.T1, Sequence.T1CE)


def contradicted(t1: Path, t1ce: Path) -> str:
    """Why two converted images cannot be what they are called; empty where they can be."""
    score = enhancement_score(read_nifti(t1), read_nifti(t1ce))
    if not contradicts(score):
        return ""
    return (
        f"its pixels contradict the header: the T1 is brighter in vessels than the T1CE "
        f"(enhancement {score:.2f}, expected above 0)"
    )


def undecided_contrast(study: StudyPlan, why: str) -> StudyPlan:
    """The study with the series of T1 and T1CE left to a person."""
    return replace(study, series_plans=tuple(_ask(p, why) for p in study.series_plans))


def _ask(series_plan: SeriesPlan, why: str) -> SeriesPlan:
    if series_plan.status is not SeriesStatus.SELECTED or series_plan.sequence not in CONTRASTS:
        return series_plan
    guess = replace(
        series_plan.guess,
        candidates=CONTRASTS,
        confidence=CONFLICT,
        reason=f"{series_plan.guess.reason}; {why}",
    )
    return replace(series_plan, status=SeriesStatus.UNDECIDED, sequence=None, guess=guess)
