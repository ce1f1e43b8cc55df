"""A study's cases, prepared, and the patients of two hospitals found among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gliofed.data.store import PreparedCase, PreparedStore
from gliofed.experiments.exclusions import ExcludedCase, in_words, set_aside, sites_of
from gliofed.experiments.patient_overlap import PatientOverlap, find_overlap, linked, refuse
from gliofed.preprocessing.cases import prepare_all
from gliofed.runtime.progress import Progress
from gliofed.study import Study
from gliofed.types import Case


def compare_sites(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, watcher: Progress
) -> tuple[PatientOverlap, tuple[PreparedCase, ...], tuple[ExcludedCase, ...]]:
    """Prepare every case, then look for patients at two hospitals in every way the study asks.

    Cases that do not reach what `[quality]` asks are set aside before: they are not compared.
    """
    every = [c for site in cases.values() for c in site]
    watcher.stage(f"preparing {len(every)} cases of {len(cases)} hospitals")
    shelf = PreparedStore(store)
    prepared = prepare_all(
        every,
        study.grid,
        study.prepare,
        shelf,
        lambda done, total: watcher.progress(done, total, "cases"),
    )
    shelf.save_digests()
    prepared, aside = set_aside(study, prepared)
    if aside:
        watcher.note(in_words(aside))
    watcher.stage("comparing patients between hospitals")
    used = sites_of(cases, prepared)
    overlap = find_overlap(study, used, {str(p.case): p for p in prepared}, shelf)
    return overlap, prepared, aside


def compared_cases(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, watcher: Progress
) -> tuple[
    Mapping[str, Sequence[Case]],
    Mapping[str, PreparedCase],
    PatientOverlap,
    tuple[ExcludedCase, ...],
]:
    """The cases and their prepared scans, one `patient` for all that are one person."""
    overlap, prepared, aside = compare_sites(study, cases, store, watcher)
    refuse(study, overlap)
    cases = linked(sites_of(cases, prepared), overlap)
    one = {str(c): c for own in cases.values() for c in own}
    named = {str(p.case): replace(p, case=one[str(p.case)]) for p in prepared}
    return cases, named, overlap, aside
