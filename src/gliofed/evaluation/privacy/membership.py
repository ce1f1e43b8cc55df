"""Membership inference: which patients a model was trained on, from its outputs for them.

Two attacks. By the loss (Yeom et al. 2018, IEEE CSF): a small loss speaks for a training case. By
the likelihood ratio (Carlini et al. 2022, IEEE S&P): the output is compared with those of reference
models that were trained with and without the case. With few reference models, gap and spread are
shared by all cases; each case has a level of its own (`ratio_scores`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.evaluation.intervals.bootstrap import (
    Values,
    Weights,
    patient_resamples,
    percentile_interval,
    ratio,
    unit_weights,
)
from gliofed.evaluation.intervals.estimate import NO_INTERVAL
from gliofed.evaluation.metrics.discrimination import auc, recall_at_other_recall
from gliofed.evaluation.privacy.rows import JOINT, NONE, Attack, PrivacyRow

LEVELS: Final = (0.0, 0.01, 0.1)
"""False-positive rates at which the true-positive rate is given; 0: not one false positive. That
has no interval: it depends on a single patient, and resamples without that patient are biased."""
SEEN: Final = "outputs of the model"
Scores = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class MembershipGame:
    """What every model of a run gives for every case.

    losses, confidences: (models, cases, tasks), NaN where a case has no label of a task. A
    confidence is about normally distributed over models. trained: (models, cases), whether the
    model was trained on the case. played: (models, cases), whether the case is a training case of
    the model or held out at a site that trains it. seeds: of each model. patients: of each case.
    """

    tasks: tuple[str, ...]
    losses: Scores
    confidences: Scores
    trained: Flags
    played: Flags
    seeds: tuple[int, ...]
    patients: tuple[str, ...]


def loss_scores(game: MembershipGame) -> Scores:
    """(models, cases, tasks + 1): minus the loss; last, minus the mean of the case's losses."""
    known = ~np.isnan(game.losses)
    total, count = np.where(known, game.losses, 0).sum(2), known.sum(2)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return -np.concatenate([game.losses, mean[..., None]], 2)


def ratio_scores(game: MembershipGame) -> Scores | None:
    """(models, cases, tasks + 1): log-likelihood ratios "trained on" against "not"; last, their
    sum. None where no model has reference models of which some were trained on a case and some
    were not, as with one seed, or with two of one fold.

    Reference models of a model are those of other seeds: those of its own seed held out the same
    patients. A confidence is taken as level of the case + gap if trained on it + normal noise, all
    fitted by least squares to the reference models. A gap below 0 counts as 0.
    """
    out = np.full((*game.losses.shape[:2], len(game.tasks) + 1), np.nan)
    for model, seed in enumerate(game.seeds):
        others = np.array(game.seeds) != seed
        for task in range(len(game.tasks)):
            out[model, :, task] = _ratios(
                game.confidences[model, :, task],
                game.confidences[others, :, task],
                game.trained[others],
            )
    known = ~np.isnan(out[..., :-1])
    if not known.any():
        return None
    out[..., -1] = np.where(known.any(2), np.where(known, out[..., :-1], 0).sum(2), np.nan)
    return out


def _ratios(own: Scores, references: Scores, trained: Flags) -> Scores:
    """The log-likelihood ratio of each case of one model and task; NaN without a confidence."""
    known = np.isfinite(references).all(0)
    if not len(references):
        return np.full(own.shape, np.nan)
    values, inside = references[:, known], trained[:, known].astype(float)
    apart, change = inside - inside.mean(0), values - values.mean(0)
    spread = float((apart**2).sum())
    out = np.full(own.shape, np.nan)
    if spread == 0:
        return out
    gap = max(float((apart * change).sum()) / spread, 0.0)
    free = values.size - values.shape[1] - 1
    variance = float(((change - gap * apart) ** 2).sum()) / max(free, 1)
    level = values.mean(0) - gap * inside.mean(0)
    out[known] = gap * (own[known] - level - gap / 2) / max(variance, 1e-12)
    return out


def membership_rows(
    game: MembershipGame, attack: Attack, scores: Scores, replicates: int
) -> list[PrivacyRow]:
    """Figures of each task and of all together, each the mean over models.

    scores: (models, cases, tasks + 1), high where a case is taken for a training case.
    """
    weights = np.concatenate(
        [unit_weights(len(game.patients)), patient_resamples(game.patients, replicates)]
    )
    rows = []
    for column, task in enumerate((*game.tasks, JOINT)):
        parts = [_Part.of(game, model, scores[..., column]) for model in range(len(scores))]
        parts = [p for p in parts if p.members and p.others]
        if parts:
            rows += _rows_of_task(attack, task, parts, weights)
    return rows


@dataclass(frozen=True)
class _Part:
    """One model's cases. used: (cases,). truth, values: of the used ones."""

    used: Flags
    truth: NDArray[np.int64]
    values: Scores
    patients: frozenset[str]

    @classmethod
    def of(cls, game: MembershipGame, model: int, scores: Scores) -> _Part:
        used = game.played[model] & np.isfinite(scores[model])
        names = frozenset(p for p, u in zip(game.patients, used, strict=True) if u)
        return cls(used, game.trained[model][used] * 1, scores[model][used], names)

    @property
    def members(self) -> int:
        return int(self.truth.sum())

    @property
    def others(self) -> int:
        return len(self.truth) - self.members

    def by_chance(self, level: float) -> float:
        """The mean true-positive rate of random scores at this false-positive rate."""
        return (int(level * self.others + 1e-9) + 1) / (self.others + 1)


def _rows_of_task(
    attack: Attack, task: str, parts: Sequence[_Part], weights: Weights
) -> list[PrivacyRow]:
    fewest = min(p.others for p in parts)
    n = len(frozenset.union(*(p.patients for p in parts)))
    members = float(np.mean([p.members for p in parts]))
    sizes = f"{len(parts)} models, each about {members:.0f} trained on and {fewest} or more not"

    def row(metric: str, values: Values | None, chance: float, note: str) -> PrivacyRow:
        bounds = NO_INTERVAL
        if values is not None and metric != "tpr_at_fpr_0":
            bounds = percentile_interval(values[1:])
        return PrivacyRow(
            attack,
            "final",
            SEEN,
            NONE,
            task,
            metric,
            None if values is None else float(values[0]),
            bounds.low,
            bounds.high,
            chance,
            n,
            note,
        )

    rows = [row("auc", _mean([_auc(p, weights) for p in parts]), 0.5, sizes)]
    for level in LEVELS:
        metric = f"tpr_at_fpr_{level:g}"
        if 0 < level < 1 / fewest:
            note = f"the smallest false-positive rate above 0 is 1 of {fewest}"
            rows.append(row(metric, None, level, note))
            continue
        chance = float(np.mean([p.by_chance(level) for p in parts]))
        found = [_true_positives(p, weights, level) for p in parts]
        rows.append(row(metric, _mean(found), chance, sizes))
    return rows


def _two_columns(values: Scores) -> Scores:
    return np.stack([-values, values], 1)


def _auc(part: _Part, weights: Weights) -> Values:
    return auc(part.truth, _two_columns(part.values), weights[:, part.used])


def _true_positives(part: _Part, weights: Weights, level: float) -> Values:
    drawn = weights[:, part.used]
    return recall_at_other_recall(part.truth, _two_columns(part.values), drawn, 1, 1 - level)


def _mean(each: Sequence[Values]) -> Values:
    """The mean over models of each replicate, without those where a model has no figure."""
    stacked = np.stack(each)
    found = np.isfinite(stacked)
    total, count = np.where(found, stacked, 0).sum(0), found.sum(0)
    return ratio(total, count)
