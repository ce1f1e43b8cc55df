"""Made-up answers of a study with evidence, and a calibration, for the tests of pages."""

from __future__ import annotations

import dataclasses

import numpy as np
from made_up_run import SKILL, make_result

from gliofed.calibration.evaluation import evaluate_calibration
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.claims import collect_evidence
from gliofed.evaluation.results import CaseResult
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.study import CalibrationConfig
from gliofed.types import Person

EXTERNAL = {"amsterdam": 40, "brussels": 12}
HELD = {"gent": 16, "leiden": 14, "utrecht": 12}
MODELS = {"federated": "federated", "pooled": "pooled", "radiomics": "alone:leiden",
          "alone:gent": "alone:gent"}  # fmt: skip
"""Names, and of which made-up model the answers are."""


def study_results(seeds: tuple[int, ...] = (1,)) -> tuple[CaseResult, ...]:
    """Of every model: two external hospitals, three that kept patients back; ages go with IDH."""
    out = []
    for seed in seeds:
        for model, kin in MODELS.items():
            assert kin in SKILL
            rng = np.random.default_rng([seed, *model.encode()])
            for role, sites in (("external", EXTERNAL), ("holdout", HELD)):
                for site, n in sites.items():
                    for number in range(n):
                        one = make_result(rng, kin, seed, role, site, number)
                        own = np.random.default_rng([number, *site.encode(), 1])
                        age = float(own.normal(45 if one.labels["idh"] == "mutant" else 60, 12))
                        person = Person("F" if own.random() < 0.5 else "M", age)
                        out.append(dataclasses.replace(one, model=model, person=person))
    return tuple(out)


def make_scored(reference: str = "federated", replicates: int = 20) -> ScoredPredictions:
    """As a run or `gliofed score` would hand it to a page."""
    results = study_results()
    tried = evaluate_calibration(results, reference, CalibrationConfig(), replicates)
    rows = score_table([*results, *tried.results], replicates, reference)
    found = collect_evidence(results, replicates, reference)
    return ScoredPredictions(rows, results, found, tried, reference)
