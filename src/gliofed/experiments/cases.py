"""A study's cases, prepared, and the patients of two hospitals found among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.experiments.exclusions import ExcludedCase, exclude_cases, exclusion_note, used_cases
from gliofed.experiments.patient_overlap import (
    PatientOverlap,
    check_overlap,
    find_patient_overlap,
    link_patients,
)
from gliofed.experiments.run_context import StudyCases
from gliofed.preprocessing.dataset import preparation_request, prepare_every_case
from gliofed.runtime.progress import Progress
from gliofed.study import Study
from gliofed.types import Case


def prepare_and_compare(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, progress: Progress
) -> tuple[PatientOverlap, tuple[PreparedCase, ...], tuple[ExcludedCase, ...]]:
    """Prepare every case, then look for patients at two hospitals in every way the study asks.

    Cases that do not reach what `[quality]` asks are set aside before: they are not compared.
    """
    every = [c for site in cases.values() for c in site]
    progress.stage(f"preparing {len(every)} cases of {len(cases)} hospitals")
    prepared = prepare_every_case(every, preparation_request(study, store), progress)
    prepared, aside = exclude_cases(study, prepared)
    if aside:
        progress.note(exclusion_note(aside))
    progress.stage("comparing patients between hospitals")
    used = used_cases(cases, prepared)
    overlap = find_patient_overlap(
        study, used, {str(p.case): p for p in prepared}, PreparedStore(store)
    )
    return overlap, prepared, aside


def prepare_study_cases(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, progress: Progress
) -> StudyCases:
    """The cases and their prepared scans, one `patient` for all that are one person."""
    overlap, prepared, aside = prepare_and_compare(study, cases, store, progress)
    check_overlap(study, overlap)
    cases = link_patients(used_cases(cases, prepared), overlap)
    one = {str(c): c for own in cases.values() for c in own}
    named = {str(p.case): replace(p, case=one[str(p.case)]) for p in prepared}
    return StudyCases(cases, named, overlap, aside)
