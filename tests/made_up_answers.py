"""Made-up answers of models for the tests of comparisons and confounders."""

from __future__ import annotations

import numpy as np
from made_up_run import MODELS, TRAIN, make_result

from gliofed.evaluation.results import CaseResult
from gliofed.markers import MARKERS
from gliofed.types import Labels, Person

EVEN = {m.id: (1 / len(m.classes),) * len(m.classes) for m in MARKERS}


def answer(number, labels=None, model="federated", seed=1, **fields):
    """One case of one patient; probabilities even but for those given."""
    chances = EVEN | fields.pop("probabilities", {})
    plain = {"fold": "external", "role": "external", "case": f"sub-{number:03d}", "site": "gent",
             "patient": f"patient-{number}", "dice": None, "hd95_mm": None, "volume_ml": None,
             "volume_true_ml": None}  # fmt: skip
    return CaseResult(model=model, seed=seed, labels=Labels(labels or {}), probabilities=chances,
                      **(plain | fields))  # fmt: skip


def made_up_results(cases, seeds=(1,), inside=6):
    """Every model's answers on an external hospital, and on a few cases of each of its own."""
    out = []
    for model in MODELS:
        for seed in seeds:
            rng = np.random.default_rng([seed, *model.encode()])
            out += [make_result(rng, model, seed, "external", "amsterdam", n) for n in range(cases)]
            out += [make_result(rng, model, seed, "holdout", s, n)
                    for s in TRAIN for n in range(inside)]  # fmt: skip
    return out


def chance(logit):
    p = float(1 / (1 + np.exp(-logit)))
    return (1 - p, p)


def binary(truth, scores, task="idh", classes=("wildtype", "mutant"), **fields):
    """Answers of one model: a case a row, its probability rising with the score."""
    return [
        answer(i, {task: classes[int(t)]}, probabilities={task: chance(s)}, **fields)
        for i, (t, s) in enumerate(zip(truth, scores, strict=True))
    ]


def cohort(seed, n, own=0.0, second_measurement=1.5):
    """Patients in whom age and MGMT go with IDH, and a model's answers for IDH and MGMT.

    own: how much of MGMT itself the MGMT score sees. second_measurement: how much of IDH.
    """
    rng = np.random.default_rng([seed, n])
    out = []
    for i in range(n):
        mutant = rng.random() < 0.45
        methylated = rng.random() < (0.9 if mutant else 0.42)
        age = rng.normal(40 if mutant else 61, 11)
        idh = 2.0 * (mutant - 0.5) + rng.normal()
        mgmt = second_measurement * mutant + own * methylated + rng.normal()
        labels = {"idh": "mutant" if mutant else "wildtype",
                  "mgmt": "methylated" if methylated else "unmethylated"}  # fmt: skip
        person = Person("F" if rng.random() < 0.5 else "M", age)
        out.append(
            answer(i, labels, probabilities={"idh": chance(idh), "mgmt": chance(mgmt - 1)},
                   person=person, patient=f"{seed}-{i}")
        )  # fmt: skip
    return out
