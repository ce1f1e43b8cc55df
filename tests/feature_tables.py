"""Made-up tables of features."""

from __future__ import annotations

import functools

import numpy as np

from gliofed.radiomics.feature_table import FeatureSubject, FeatureTable
from gliofed.radiomics.regression import RadiomicsModel, train_regressions
from gliofed.types import UNKNOWN, Labels, Person


def made_up(sizes=(9, 1, 8, 10), features=32, seed=0, unknown=0.1) -> FeatureTable:
    """Hospitals s0, s1, ...; more features than cases, the first of which tell IDH and grade."""
    rng = np.random.default_rng(seed)
    subjects, rows = [], []
    for place, size in enumerate(sizes):
        shift, scale = rng.normal(size=features), rng.gamma(4, 0.25, size=features)
        for number in range(size):
            hidden = rng.normal()
            values = 50 + 3 * (shift / 2 + scale * (rng.normal(size=features) + 1.5 * hidden))
            values[rng.random(features) < unknown] = np.nan
            labels = Labels({
                "idh": UNKNOWN if number == 1 else "mutant" if hidden + rng.normal() / 2 > 0 else "wildtype",
                "mgmt": "methylated",
                "grade": ("2", "3", "4")[int(np.searchsorted([-0.5, 0.5], hidden + rng.normal() / 2))],
            })  # fmt: skip
            person = Person(
                UNKNOWN if number == 2 else ("F", "M")[number % 2],
                UNKNOWN if number == 3 else round(50 - 8 * hidden + rng.normal(), 1),
            )
            name = f"s{place}-{number}"
            subjects.append(FeatureSubject(name, f"s{place}", name, labels, person))
            rows.append(values)
    return FeatureTable(tuple(subjects), tuple(f"f{n}" for n in range(features)), np.array(rows))


@functools.cache
def trained(harmonised=False) -> RadiomicsModel:
    """By the hospitals of `made_up()`."""
    return train_regressions(made_up().by_site(), harmonised=harmonised)
