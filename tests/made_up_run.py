"""A made-up run for the tests of the results page."""

from __future__ import annotations

import numpy as np

from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.results import CaseResult, Role
from gliofed.markers import BY_ID, MARKERS
from gliofed.reporting.study.content import (
    ScoredPredictions,
    SegmentationExample,
    StudyContent,
    TrainingHistory,
)
from gliofed.types import Labels, RoundPoint

TRAIN = ("gent", "leiden", "utrecht")
MODELS = ("federated", "pooled", *(f"alone:{s}" for s in TRAIN))
SKILL = {"federated": 1.6, "pooled": 1.8, "alone:gent": 0.9, "alone:leiden": 0.6,
         "alone:utrecht": 1.1}  # fmt: skip


def make_result(
    rng: np.random.Generator, model: str, seed: int, role: Role, site: str, number_: int
) -> CaseResult:
    """One case: the truth hangs on its name alone, the answer also on model and seed."""
    own = np.random.default_rng([number_, *site.encode()])
    labels, chances = {}, {}
    for marker in MARKERS:
        truth = int(own.integers(len(marker.classes)))
        if own.random() > 0.2:
            labels[marker.id] = marker.classes[truth]
        logits = rng.normal(0, 1, len(marker.classes))
        logits[truth] += SKILL[model] * (0.3 if marker.id == "mgmt" else 1)
        odds = np.exp(logits)
        chances[marker.id] = tuple(float(p) for p in odds / odds.sum())
    drawn = own.random() > 0.1
    volume = float(own.uniform(15, 120))
    return CaseResult(
        model=model, seed=seed, fold="external", role=role, case=f"sub-{number_:03d}", site=site,
        patient=f"{site}-{number_}", labels=Labels(labels), probabilities=chances,
        dice=float(np.clip(rng.normal(0.6 + 0.13 * SKILL[model], 0.08), 0, 1)) if drawn else None,
        hd95_mm=float(rng.gamma(3, 3)) if drawn else None,
        volume_ml=volume * float(rng.uniform(0.8, 1.2)), volume_true_ml=volume if drawn else None,
    )  # fmt: skip


def make_curve(model: str, seed: int, rounds: int) -> TrainingHistory:
    rng = np.random.default_rng([seed, *model.encode()])
    points = []
    for r in range(rounds):
        left = np.exp(-r / 9) * (1.3 - 0.1 * SKILL[model])
        losses = {t: float(0.3 + 0.6 * left + rng.normal(0, 0.03))
                  for t in ("mask", *BY_ID)}  # fmt: skip
        refused = {"leiden": "norm of the change 61.2 above 2 x 24.1"} if r == 6 else {}
        points.append(
            RoundPoint(
                round=r,
                rounds=1,
                losses=losses,
                dice=float(0.85 - 0.6 * left + rng.normal(0, 0.02)),
                gradient_norm=None,
                seconds=12.5,
                bytes_up=4_100_000,
                refused=refused if model == "federated" and seed == 1 else {},
                answered={"utrecht": 11.5},
                merged={"utrecht": 1},
            )
        )
    return TrainingHistory(model, seed, "external", tuple(points))


def make_mosaic(rank: str, case: str, dice: float, shift: int) -> SegmentationExample:
    planes = []
    for name, rows, columns, aspect in (
        ("axial", 60, 48, 1.0), ("coronal", 19, 48, 2.5), ("sagittal", 19, 60, 2.5),
    ):  # fmt: skip
        y, x = np.indices((rows, columns)).astype(float)
        far = np.hypot((y - rows / 2) / (rows / 2), (x - columns / 2) / (columns / 2))
        noise = np.random.default_rng([rows, columns]).normal(0, 0.05, far.shape)
        blob = np.hypot((y - rows * 0.4) * aspect, x - columns * 0.35)
        expert = blob < 9 + 2 * np.sin(x / 3)
        grey = np.clip(np.where(far < 0.95, 0.4 + noise + 0.4 * expert, 0), 0, 1)
        planes.append((name, grey.astype(np.float32), expert, np.roll(expert, shift, 1), aspect))
    return SegmentationExample(rank, case, "federated", dice, tuple(planes))


def make_content(
    cases: int = 40, seeds: tuple[int, ...] = (1, 2), rounds: int = 30, replicates: int = 100
) -> StudyContent:
    """A run of three hospitals and an external one, as its figures might look."""
    results = []
    for model in MODELS:
        for seed in seeds:
            rng = np.random.default_rng([seed, *model.encode()])
            for n in range(cases):
                results.append(make_result(rng, model, seed, "external", "amsterdam", n))
            for site in TRAIN:
                for n in range(max(1, cases // 6)):
                    results.append(make_result(rng, model, seed, "holdout", site, n))
    header = ("hospital", "role", "cases", "masks", "T1", "T1CE", "T2", "FLAIR",
              *(f"{m.title} ({'/'.join(m.classes)}/unknown)" for m in MARKERS))  # fmt: skip
    body = ("61", "55", "61", "60", "58", "61", "21/29/11", "33/14/14", "20/22/19", "22/19/18/2")
    return StudyContent(
        study="Three hospitals and Amsterdam",
        synthetic=True,
        scored=ScoredPredictions(score_table(results, replicates), tuple(results)),
        curves=tuple(make_curve(m, s, rounds) for m in MODELS for s in seeds),
        examples=(
            make_mosaic("best", "amsterdam/sub-011", 0.94, 0),
            make_mosaic("median", "amsterdam/sub-027", 0.82, 2),
            make_mosaic("worst", "amsterdam/sub-004", 0.41, 6),
        ),
        cohort=(
            header,
            *((s, "training", *body) for s in TRAIN),
            ("amsterdam", "external test", *body),
        ),
        notes=(
            "Every scan here is a synthetic phantom. No figure says anything of patients.",
            "Left out of this study: leiden/sub-009: the same patient as amsterdam/sub-031.",
            "T1CE is missing in 4 of 244 cases.",
            "24 of 244 cases have no expert mask: they train and test the markers only.",
        ),
        facts=(
            ("gliofed", "0.1.0"),
            ("study", "Three hospitals and Amsterdam, digest 4f1c0a9b7d3e2a55"),
            ("network", "small, 1,204,331 parameters"),
            ("machine", "cpu, 2 threads, float32"),
        ),
    )
