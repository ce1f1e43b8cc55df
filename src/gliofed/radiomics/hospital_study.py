"""The regressions of a study of hospitals: sets of features, each hospital held out in turn.

Federated models are fitted by sums of the other hospitals; pooled ones on their cases as those of
one hospital; models of one site on its cases alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS
from gliofed.radiomics.feature_table import IDH_NAME, FeatureTable
from gliofed.radiomics.input_names import AGE_SEX_NAMES
from gliofed.radiomics.leave_one_out import HeldOutSite, held_out_sites
from gliofed.radiomics.regression import RadiomicsModel, case_results, train_regressions
from gliofed.radiomics.vocabulary import COMMON, REGIONAL
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.types import Unknown

_COMMON: Final = tuple(f.name for f in COMMON)
_ALL: Final = (*_COMMON, *(f.name for f in REGIONAL))


@dataclass(frozen=True)
class FeatureSet:
    """A set of features that models are compared by. reference: the set that it adds to.

    uses_idh: IDH is an input, known as a label; such a model is tested for MGMT only.
    """

    name: str
    title: str
    features: tuple[str, ...]
    reference: str = ""
    harmonised: bool = False

    @property
    def uses_idh(self) -> bool:
        """Whether the label of IDH is an input."""
        return IDH_NAME in self.features


AGE_SEX: Final = FeatureSet("age_sex", "age and sex", AGE_SEX_NAMES)
AGE_SEX_IDH: Final = FeatureSet("age_sex_idh", "age, sex and IDH", (*AGE_SEX_NAMES, IDH_NAME))
MAIN: Final = FeatureSet(
    "common_age_sex", "common features, age, sex", (*_COMMON, *AGE_SEX_NAMES), "age_sex"
)
FEATURE_SETS: Final = (
    AGE_SEX,
    FeatureSet("common", "common features", _COMMON, "age_sex"),
    FeatureSet("common_combat", "common features, ComBat", _COMMON, "age_sex", harmonised=True),
    MAIN,
    FeatureSet(
        "common_age_sex_combat",
        "common features (ComBat), age, sex",
        MAIN.features,
        "age_sex",
        harmonised=True,
    ),
    FeatureSet(
        "regions_age_sex", "all features, age, sex", (*_ALL, *AGE_SEX_NAMES), reference="age_sex"
    ),
    FeatureSet(
        "regions_age_sex_combat",
        "all features (ComBat), age, sex",
        (*_ALL, *AGE_SEX_NAMES),
        "age_sex",
        harmonised=True,
    ),
    AGE_SEX_IDH,
    FeatureSet(
        "common_age_sex_idh",
        "common features, age, sex, IDH",
        (*_COMMON, *AGE_SEX_IDH.features),
        "age_sex_idh",
    ),
    FeatureSet(
        "regions_age_sex_idh",
        "all features, age, sex, IDH",
        (*_ALL, *AGE_SEX_IDH.features),
        "age_sex_idh",
    ),
)
POOLED: Final = "one"
"""The name of the site that has the cases of all."""


def held_out_results(
    table: FeatureTable,
    sets: Sequence[FeatureSet],
    same_hospital: Sequence[Sequence[str]] = (),
    progress: Progress = NO_PROGRESS,
) -> tuple[CaseResult, ...]:
    """Every case by a federated model of each set, trained without its hospital.

    table: the vocabulary with the patient's columns. Raises DataError as `held_out_sites` does.
    """
    out: list[CaseResult] = []
    for number, split in enumerate(held_out_sites(table, same_hospital)):
        for place, chosen in enumerate(sets):
            model = _train(split.training, chosen)
            out += _tested(model, split, chosen)
            done = number * len(sets) + place + 1
            progress.update(done, len(table.sites) * len(sets), chosen.name)
    return tuple(out)


def pooled_results(
    table: FeatureTable, chosen: FeatureSet, same_hospital: Sequence[Sequence[str]] = ()
) -> tuple[CaseResult, ...]:
    """As `held_out_results` of one set without ComBat, trained on all cases as those of one."""
    out: list[CaseResult] = []
    for split in held_out_sites(table, same_hospital):
        out += _tested(_train(_pooled(split.training), chosen), split, chosen)
    return tuple(out)


def alone_results(
    table: FeatureTable, chosen: FeatureSet, same_hospital: Sequence[Sequence[str]] = ()
) -> tuple[CaseResult, ...]:
    """Every case by the model of each single site, except of its own institution.

    Models are named "alone:SITE"; a marker with one known class there has no probability.
    """
    out: list[CaseResult] = []
    for split in held_out_sites(table, same_hospital):
        for own in split.training.by_site():
            model = _train(own, dataclasses.replace(chosen, name=f"alone:{own.sites[0]}"))
            out += _tested(model, split, chosen)
    return tuple(out)


def largest_difference(one: Sequence[CaseResult], other: Sequence[CaseResult]) -> float:
    """The largest difference between probabilities of two models for the same cases.

    Raises ValueError for other cases, or if only one of them has a probability.
    """
    most = 0.0
    for a, b in zip(one, other, strict=True):
        if (a.site, a.case) != (b.site, b.case):
            raise ValueError(f"{a.site}/{a.case} and {b.site}/{b.case} are different cases")
        for marker in MARKERS:
            pair = np.array([a.probabilities[marker.id], b.probabilities[marker.id]])
            if np.isnan(pair).all():
                continue
            if np.isnan(pair).any():
                raise ValueError(f"{a.site}/{a.case}: only one of the models has a probability")
            most = max(most, float(np.abs(pair[0] - pair[1]).max()))
    return most


def idh_wildtype(results: Sequence[CaseResult]) -> tuple[CaseResult, ...]:
    """The results of patients whose tumour is known to be IDH-wildtype."""
    return tuple(r for r in results if r.labels["idh"] == "wildtype")


def class_counts(table: FeatureTable) -> dict[tuple[str, str], tuple[int, ...]]:
    """(site, marker id) to the number of cases of each class."""
    out = {}
    for own in table.by_site():
        for marker in MARKERS:
            known = [s.labels[marker.id] for s in own.subjects]
            labels = [x for x in known if not isinstance(x, Unknown)]
            out[own.sites[0], marker.id] = tuple(labels.count(c) for c in marker.classes)
    return out


def _train(table: FeatureTable, chosen: FeatureSet) -> RadiomicsModel:
    seen = table.only(chosen.features)
    return train_regressions(seen.by_site(), chosen.name, harmonised=chosen.harmonised)


def _tested(
    model: RadiomicsModel, split: HeldOutSite, chosen: FeatureSet
) -> tuple[CaseResult, ...]:
    """The results of the hospital held out; with IDH as an input, of MGMT only."""
    found = case_results(model, split.test.only(chosen.features), split.site, "external")
    if not chosen.uses_idh:
        return found
    return tuple(
        dataclasses.replace(
            r,
            probabilities={
                k: p if k == "mgmt" else (math.nan,) * len(p) for k, p in r.probabilities.items()
            },
        )
        for r in found
    )


def _pooled(table: FeatureTable) -> FeatureTable:
    subjects = tuple(dataclasses.replace(s, site=POOLED) for s in table.subjects)
    return FeatureTable(subjects, table.names, table.values)
