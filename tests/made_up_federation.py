"""A made-up run between hospitals, as its server and its lead tell of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from made_up_run import TRAIN, make_curve, make_result

import gliofed
from gliofed.deployment.training_job import run_id, study_for_sites
from gliofed.evaluation.by_site_sums.score_table import score_table_from_sums
from gliofed.evaluation.by_site_sums.sums import score_sums, suppress_small_counts
from gliofed.evaluation.results import ScoreRow
from gliofed.study import Study, parse_study
from gliofed.types import RoundPoint

EXTERNAL = "amsterdam"
LATE = "site leiden: no answer: no answer within 3600 s"


def make_study(rounds: int = 30, **data: object) -> Study:
    """Three hospitals train with local epochs, one only tests."""
    raw = {"root": "nowhere", "train": list(TRAIN), "external": [EXTERNAL], **data}
    whole = {"name": "Three hospitals and Amsterdam", "data": raw, "train": {"epochs": rounds},
             "federation": {"method": "label_aware", "quorum": 2}}  # fmt: skip
    return study_for_sites(parse_study(whole))


def make_points(rounds: int) -> tuple[RoundPoint, ...]:
    """Leiden is late from round 5 to 7 and refused in round 12; Gent is the fastest."""
    out = []
    for point in make_curve("federated", 1, rounds).points:
        number = point.round + 1
        refused = {"leiden": LATE} if 5 <= number <= 7 else {}
        if number == 12:
            refused = {"leiden": "site leiden: norm of the change 61.2 above 2 x 24.1"}
        took = {"gent": 8.25 + number / 100, "leiden": 11.5, "utrecht": 10.0}
        answered = {s: t for s, t in took.items() if s not in refused}
        out.append(dataclasses.replace(point, refused=refused, answered=answered,
                                       merged=dict.fromkeys(answered, 1)))  # fmt: skip
    return tuple(out)


def make_rows(
    cases: int = 60, smallest: int = 1, failed: tuple[str, ...] = ()
) -> tuple[ScoreRow, ...]:
    """The test: `cases` at the external hospital, a quarter of them held out at each other."""
    sums = {}
    for site in (*TRAIN, EXTERNAL):
        rng = np.random.default_rng([*site.encode()])
        role, n = ("external", cases) if site == EXTERNAL else ("holdout", cases // 4)
        own = [make_result(rng, "federated", 1, role, site, k) for k in range(n)]
        if site not in failed:
            sums[site] = {r: suppress_small_counts(s, smallest) for r, s in score_sums(own).items()}
    return score_table_from_sums(sums, failed)


def make_status(
    study: Study, rounds: int, state: str = "training", **more: object
) -> gliofed.RunStatus:
    whole = gliofed.RunStatus(
        run=run_id(study), study=study.name, digest=study.digest, state="training", why="",
        rounds=study.train.epochs, sites=(*study.data.train, *study.data.external),
        points=make_points(rounds),
    )  # fmt: skip
    return dataclasses.replace(whole, state=state, **more)
