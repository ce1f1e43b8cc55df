"""Prepared cases below a study's quality limits: excluded from training, tests and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.data.store import PreparedCase
from gliofed.errors import DataError
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.study import QualityConfig, Study
from gliofed.types import Case


@dataclass(frozen=True)
class ExcludedCase:
    """One excluded case. reasons: each with its cure."""

    case: Case
    reasons: tuple[str, ...]


def exclude_cases(
    study: Study, prepared: Sequence[PreparedCase]
) -> tuple[tuple[PreparedCase, ...], tuple[ExcludedCase, ...]]:
    """The cases that the study uses, and those that its `[quality]` excludes.

    Raises DataError where a hospital has no case left: that would change the study.
    """
    used, excluded = within_quality(study.quality, prepared)
    left = {p.case.site for p in used}
    for site, count in _by_site(excluded).items():
        if site not in left:
            first = next(e for e in excluded if e.case.site == site)
            raise DataError(
                f"{site}: none of its {count} cases can be used, all are excluded; "
                f"{first.case}: {'; '.join(first.reasons)}. Correct them, leave the hospital out "
                "of the study, or change its [quality]"
            )
    return used, excluded


def within_quality(
    quality: QualityConfig, prepared: Sequence[PreparedCase]
) -> tuple[tuple[PreparedCase, ...], tuple[ExcludedCase, ...]]:
    """The cases within these limits, and the others with their faults."""
    judged = [(p, quality_faults(p.measures, quality, p.placements)) for p in prepared]
    return (
        tuple(p for p, faults in judged if not faults),
        tuple(ExcludedCase(p.case, faults) for p, faults in judged if faults),
    )


def used_cases(
    cases: Mapping[str, Sequence[Case]], used: Sequence[PreparedCase]
) -> Mapping[str, tuple[Case, ...]]:
    """Each hospital with those of its cases that are not excluded."""
    names = {str(p.case) for p in used}
    return {
        site: tuple(c for c in site_cases if str(c) in names) for site, site_cases in cases.items()
    }


def exclusion_note(excluded: Sequence[ExcludedCase]) -> str:
    """One sentence: how many cases are excluded, and at which hospitals."""
    sites = ", ".join(f"{site} {count}" for site, count in _by_site(excluded).items())
    cases = "1 case is" if len(excluded) == 1 else f"{len(excluded)} cases are"
    return f"{cases} excluded from training and tests: {sites}"


def excluded_rows(excluded: Sequence[ExcludedCase]) -> tuple[tuple[str, str, str], ...]:
    """(case, hospital, reasons) of each, for pages and checklists."""
    return tuple((str(e.case), e.case.site, "; ".join(e.reasons)) for e in excluded)


def _by_site(excluded: Sequence[ExcludedCase]) -> Mapping[str, int]:
    return Counter(e.case.site for e in excluded)
