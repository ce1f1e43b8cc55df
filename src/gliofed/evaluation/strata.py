"""A model's scores within strata of patients.

A marker that is associated with another can be predicted from the other alone, but not within one
class of it. A figure over all patients can hide a group for which a model is worse.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.paired import (
    MIN_CASES_PER_CLASS,
    TASKS,
    paired_estimate,
    paired_predictions,
    results_by_role,
    score_row,
    too_few_note,
)
from gliofed.evaluation.results import CaseResult, ScoreGroup, ScoreRow
from gliofed.types import SEQUENCES, Unknown
from gliofed.types import Sequence as MriSequence

AGE_SPLIT_YEARS: Final = 60.0
"""Fixed age limit in years, so that the strata of two cohorts are comparable."""
IDH_WILDTYPE: Final = "IDH-wildtype"
CaseKey = tuple[str, str]
"""Site and case."""


@dataclass(frozen=True)
class Stratum:
    """title: the cases of the stratum. tasks: scored within it."""

    title: str
    tasks: tuple[str, ...]
    holds: Callable[[CaseResult], bool]


def _is(marker: str, name: str) -> Callable[[CaseResult], bool]:
    return lambda r: r.labels[marker] == name


MARKER_STRATA: Final[tuple[Stratum, ...]] = (
    Stratum("WHO grade 2", ("idh",), _is("grade", "2")),
    Stratum("WHO grade 3", ("idh",), _is("grade", "3")),
    Stratum("WHO grade 4", ("idh",), _is("grade", "4")),
    Stratum("IDH-mutant", ("codel_1p19q", "grade"), _is("idh", "mutant")),
    Stratum(IDH_WILDTYPE, ("mgmt", "grade"), _is("idh", "wildtype")),
)
"""Strata of one class of a marker, for tasks associated with that marker."""


def strata_table(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> tuple[ScoreRow, ...]:
    """The model's AUCs and Dice in every stratum of each role, over all sites.

    A row has n and a note but no value where a class has fewer than `MIN_CASES_PER_CLASS` cases, or
    the stratum fewer than that with a mask. Omitted are strata by a property that is unknown in
    every case, and scanners with fewer than `MIN_CASES_PER_CLASS` cases.
    """
    rows = []
    for role, own in results_by_role(results, model):
        for stratum in strata_for(own):
            part = [r for r in own if stratum.holds(r)]
            group = ScoreGroup(model, role, ALL_SITES, stratum.title)
            rows += [stratum_score(part, task, group, replicates) for task in stratum.tasks]
    return tuple(rows)


def stratum_score(
    part: Sequence[CaseResult], task: str, group: ScoreGroup, replicates: int
) -> ScoreRow:
    """The figure of one stratum, or the reason for its absence."""
    predictions = paired_predictions(part, task)
    note = too_few_note(predictions)
    # too few cases are not resampled
    return score_row(paired_estimate(predictions, 0 if note else replicates), group, note)


def strata_for(results: Sequence[CaseResult]) -> tuple[Stratum, ...]:
    """Within markers, then sex, age, volume, sequences, scanner and site, as these cases have them.

    results: of one model and role. For volumes see `case_volumes`.
    """
    return (
        *MARKER_STRATA,
        *_people(results),
        *_by_volume(results),
        *_by_sequences(results),
        *_by_scanner(results),
        *(Stratum(f"site {s}", TASKS, _at(s)) for s in sorted({r.site for r in results})),
    )


def case_volumes(results: Sequence[CaseResult]) -> Mapping[CaseKey, float]:
    """Volume of each case in ml: of the expert mask, else the mean of the predictions. A case
    without either has no entry."""
    true: dict[CaseKey, float] = {}
    predicted: dict[CaseKey, list[float]] = defaultdict(list)
    for r in results:
        if r.volume_true_ml is not None:
            true[r.site, r.case] = r.volume_true_ml
        elif r.volume_ml is not None:
            predicted[r.site, r.case].append(r.volume_ml)
    return {case: float(np.mean(found)) for case, found in predicted.items()} | true


def _people(results: Sequence[CaseResult]) -> list[Stratum]:
    out = []
    if any(not isinstance(r.person.sex, Unknown) for r in results):
        out += [
            Stratum("women", TASKS, lambda r: r.person.sex == "F"),
            Stratum("men", TASKS, lambda r: r.person.sex == "M"),
        ]
    if any(not isinstance(r.person.age, Unknown) for r in results):
        out += [
            Stratum(f"below {AGE_SPLIT_YEARS:g} years", TASKS, lambda r: _age(r) < AGE_SPLIT_YEARS),
            Stratum(
                f"{AGE_SPLIT_YEARS:g} years and above", TASKS, lambda r: _age(r) >= AGE_SPLIT_YEARS
            ),
        ]
    return out


def _age(result: CaseResult) -> float:
    """NaN if unknown, which is neither below nor above any limit."""
    return float("nan") if isinstance(result.person.age, Unknown) else result.person.age


def _by_volume(results: Sequence[CaseResult]) -> list[Stratum]:
    """Terciles of volume; the limits depend on the cases."""
    sizes = {k: v for k, v in case_volumes(results).items() if np.isfinite(v)}
    if not sizes:
        return []
    low, high = np.quantile(list(sizes.values()), [1 / 3, 2 / 3])

    def size(r: CaseResult) -> float:
        return sizes.get((r.site, r.case), float("nan"))

    return [
        Stratum(f"tumour up to {low:.3g} ml", TASKS, lambda r: size(r) <= low),
        Stratum(f"tumour {low:.3g} to {high:.3g} ml", TASKS, lambda r: low < size(r) <= high),
        Stratum(f"tumour above {high:.3g} ml", TASKS, lambda r: size(r) > high),
    ]


def _by_sequences(results: Sequence[CaseResult]) -> list[Stratum]:
    known = [r.sequences for r in results if r.sequences is not None]
    if not known:
        return []
    missing = [s for s in SEQUENCES if any(s not in present for present in known)]
    return [
        Stratum("all four sequences", TASKS, lambda r: r.sequences == frozenset(SEQUENCES)),
        *(Stratum(f"without {s}", TASKS, _without(s)) for s in missing),
    ]


def _by_scanner(results: Sequence[CaseResult]) -> list[Stratum]:
    cases: dict[str, set[CaseKey]] = defaultdict(set)
    for r in results:
        if not isinstance(r.person.scanner, Unknown):
            cases[r.person.scanner].add((r.site, r.case))
    names = sorted(name for name, own in cases.items() if len(own) >= MIN_CASES_PER_CLASS)
    return [Stratum(f"scanner {name}", TASKS, _scanned_by(name)) for name in names]


def _at(site: str) -> Callable[[CaseResult], bool]:
    return lambda r: r.site == site


def _without(sequence: MriSequence) -> Callable[[CaseResult], bool]:
    return lambda r: r.sequences is not None and sequence not in r.sequences


def _scanned_by(scanner: str) -> Callable[[CaseResult], bool]:
    return lambda r: r.person.scanner == scanner
