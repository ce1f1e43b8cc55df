"""Prepare a study's cases, exclude those of low quality, link patients of two hospitals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.experiments.exclusions import ExcludedCase, exclude_cases, exclusion_note, used_cases
from gliofed.experiments.patch_coverage import patch_note
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
    """Prepare every case, then look for patients at two hospitals in every way that the study sets.

    Cases beyond the limits of `[quality]` are excluded first and not compared.
    """
    all_cases = [c for site in cases.values() for c in site]
    progress.stage(f"preparing {len(all_cases)} cases of {len(cases)} hospitals")
    prepared = prepare_every_case(all_cases, preparation_request(study, store), progress)
    prepared, excluded = exclude_cases(study, prepared)
    if excluded:
        progress.note(exclusion_note(excluded))
    progress.stage("comparing patients between hospitals")
    used = used_cases(cases, prepared)
    overlap = find_patient_overlap(
        study, used, {str(p.case): p for p in prepared}, PreparedStore(store)
    )
    return overlap, prepared, excluded


def prepare_study_cases(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, progress: Progress
) -> StudyCases:
    """All that training and tests need of the cases; entries of one person share one `patient`.

    Raises OverlapError where hospitals share a patient and the study refuses that.
    """
    overlap, prepared, excluded = prepare_and_compare(study, cases, store, progress)
    check_overlap(study, overlap)
    if note := patch_note(study.grid.patch, prepared):
        progress.note(note)
    cases = link_patients(used_cases(cases, prepared), overlap)
    linked = {str(c): c for site_cases in cases.values() for c in site_cases}
    by_name = {str(p.case): replace(p, case=linked[str(p.case)]) for p in prepared}
    return StudyCases(cases, by_name, overlap, excluded)
