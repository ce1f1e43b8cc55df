"""Leave-one-hospital-out cross-validation of the models of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gliofed.errors import DataError
from gliofed.evaluation.results import CaseResult
from gliofed.radiomics.feature_table import FeatureTable, age_and_sex
from gliofed.radiomics.regression import (
    AGE_SEX,
    HARMONISED,
    RADIOMICS,
    RadiomicsModel,
    case_results,
    train_regressions,
)
from gliofed.runtime.progress import NO_PROGRESS, Progress

MODELS = (RADIOMICS, HARMONISED, AGE_SEX)


def train_model(table: FeatureTable, name: str) -> RadiomicsModel:
    """One of `MODELS`, on all hospitals of a table, each as a site."""
    seen = model_inputs(table, name)
    return train_regressions(seen.by_site(), name, harmonised=name == HARMONISED)


def model_inputs(table: FeatureTable, name: str) -> FeatureTable:
    """The features that one of `MODELS` uses."""
    return age_and_sex(table) if name == AGE_SEX else table


@dataclass(frozen=True)
class HeldOutSite:
    """One hospital held out: its cases, and those of all others that may train."""

    site: str
    training: FeatureTable
    test: FeatureTable


def held_out_sites(
    table: FeatureTable, same_hospital: Sequence[Sequence[str]] = ()
) -> Iterator[HeldOutSite]:
    """Each hospital of the table in turn, however small it is.

    A patient of the hospital left out is excluded from training, also at other hospitals; so are
    the other sites of its institution, which `same_hospital` groups. Raises DataError if nothing is
    left to train on.
    """
    for site in table.sites:
        test = table.at_site(site)
        known = {s.patient for s in test.subjects}
        out = {site, *(s for group in same_hospital if site in group for s in group)}
        rows = [s.site not in out and s.patient not in known for s in table.subjects]
        if not any(rows):
            raise DataError(f"without the patients of {site} none is left to train on")
        yield HeldOutSite(site, table.pick(np.array(rows, bool)), test)


def leave_one_site_out(
    table: FeatureTable, progress: Progress = NO_PROGRESS
) -> tuple[CaseResult, ...]:
    """Predict every case by each of `MODELS`, trained without its hospital, as `held_out_sites`.

    The fold is the hospital's name. Raises DataError if there is only one hospital.
    """
    if len(table.sites) < 2:
        raise DataError("the table has one hospital; leaving it out leaves none to train on")
    out: list[CaseResult] = []
    for number, split in enumerate(held_out_sites(table)):
        for place, name in enumerate(MODELS):
            model = train_model(split.training, name)
            out += case_results(model, model_inputs(split.test, name), split.site, "external")
            done = number * len(MODELS) + place + 1
            progress.update(done, len(table.sites) * len(MODELS), "models")
    return tuple(out)
