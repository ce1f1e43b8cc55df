"""Prepared cases that do not reach what a study asks: neither trained, tested nor counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliofed.data.store import PreparedCase
from gliofed.errors import DataError
from gliofed.preprocessing.quality_control import quality_faults
from gliofed.study import Study
from gliofed.types import Case


@dataclass(frozen=True)
class ExcludedCase:
    """One case that is set aside. reasons: each with its cure."""

    case: Case
    reasons: tuple[str, ...]


def exclude_cases(
    study: Study, prepared: Sequence[PreparedCase]
) -> tuple[tuple[PreparedCase, ...], tuple[ExcludedCase, ...]]:
    """The cases that the study uses, and those that its `[quality]` sets aside.

    Raises DataError where a hospital has no case left: the study would be another one.
    """
    judged = [(p, quality_faults(p.measures, study.quality)) for p in prepared]
    used = tuple(p for p, why in judged if not why)
    aside = tuple(ExcludedCase(p.case, why) for p, why in judged if why)
    left = {p.case.site for p in used}
    for site, count in _by_site(aside).items():
        if site not in left:
            first = next(a for a in aside if a.case.site == site)
            raise DataError(
                f"{site}: none of its {count} cases can be used, all are set aside; "
                f"{first.case}: {'; '.join(first.reasons)}. Cure them, leave the hospital out of "
                "the study, or change its [quality]"
            )
    return used, aside


def used_cases(
    cases: Mapping[str, Sequence[Case]], used: Sequence[PreparedCase]
) -> Mapping[str, tuple[Case, ...]]:
    """Every hospital with those of its cases that are used."""
    names = {str(p.case) for p in used}
    return {site: tuple(c for c in own if str(c) in names) for site, own in cases.items()}


def exclusion_note(aside: Sequence[ExcludedCase]) -> str:
    """How many, and at which hospitals."""
    sites = ", ".join(f"{site} {count}" for site, count in _by_site(aside).items())
    cases = "1 case is" if len(aside) == 1 else f"{len(aside)} cases are"
    return f"{cases} set aside, neither trained nor tested: {sites}"


def _by_site(aside: Sequence[ExcludedCase]) -> Mapping[str, int]:
    return Counter(a.case.site for a in aside)
