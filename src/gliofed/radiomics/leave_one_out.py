"""Leave-one-hospital-out cross-validation of the models of features."""

from __future__ import annotations

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


def leave_one_site_out(
    table: FeatureTable, progress: Progress = NO_PROGRESS
) -> tuple[CaseResult, ...]:
    """Predict every case by each of `MODELS`, trained without its hospital, however small that is.

    A patient of the hospital left out is excluded from training, also at other hospitals. The fold
    is the hospital's name. Raises DataError if there is only one hospital.
    """
    if len(table.sites) < 2:
        raise DataError("the table has one hospital; leaving it out leaves none to train on")
    out: list[CaseResult] = []
    for number, site in enumerate(table.sites):
        test = table.at_site(site)
        known = {s.patient for s in test.subjects}
        others = np.array([s.site != site and s.patient not in known for s in table.subjects], bool)
        for place, name in enumerate(MODELS):
            model = train_model(table.pick(others), name)
            out += case_results(model, model_inputs(test, name), site, "external")
            done = number * len(MODELS) + place + 1
            progress.update(done, len(table.sites) * len(MODELS), "models")
    return tuple(out)
