"""The evidence on a model, and a verdict on each claim about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.comparison import (
    BY_CHANCE,
    Comparison,
    CrossSiteMatrix,
    compare_models,
    compare_with_chance,
    cross_site_matrices,
)
from gliofed.evaluation.confounding import (
    GIVEN_AGE,
    GIVEN_IDH,
    WITHIN,
    added_value,
    compare_with_confounders,
    confounder_scores,
)
from gliofed.evaluation.metrics.definitions import LOG_ODDS_RATIO
from gliofed.evaluation.paired import MIN_CASES_PER_CLASS
from gliofed.evaluation.personal import compared_models
from gliofed.evaluation.results import CaseResult, Role, ScoreRow
from gliofed.evaluation.strata import strata_table
from gliofed.markers import BY_ID

ALPHA: Final = 0.05


@dataclass(frozen=True)
class ClaimVerdict:
    """supported: whether the interval excludes no effect on the claimed side and p after Holm is
    below ALPHA; None if it cannot be decided. reason: the figures of the test."""

    role: Role
    task: str
    claim: str
    supported: bool | None
    reason: str

    @property
    def label(self) -> str:
        """The verdict on a page. A claim that is not supported is not thereby refuted."""
        return {True: "supported", False: "not supported", None: "n/a"}[self.supported]


@dataclass(frozen=True)
class Evidence:
    """against_chance: each marker's AUC against 0.5. For the others, see the function of each."""

    comparisons: tuple[Comparison, ...]
    cross_site: tuple[CrossSiteMatrix, ...]
    against_chance: tuple[Comparison, ...]
    against_confounders: tuple[Comparison, ...]
    added_value: tuple[Comparison, ...]
    confounder_scores: tuple[ScoreRow, ...]
    strata: tuple[ScoreRow, ...]
    verdicts: tuple[ClaimVerdict, ...]


def collect_evidence(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> Evidence:
    """Compare one model with the others and with confounders; add strata and verdicts."""
    others = compare_models(compared_models(results), replicates, model)
    chance = compare_with_chance(results, replicates, model)
    over = compare_with_confounders(results, replicates, model)
    added = added_value(results, replicates, model)
    return Evidence(
        others,
        cross_site_matrices(results, replicates),
        chance,
        over,
        added,
        confounder_scores(results, replicates, model),
        strata_table(results, replicates, model),
        judge_claims(chance, over, added, others),
    )


def judge_claims(
    chance: Sequence[Comparison],
    over: Sequence[Comparison],
    added: Sequence[Comparison],
    others: Sequence[Comparison],
) -> tuple[ClaimVerdict, ...]:
    """Judge each claim: above chance, above a confounder alone, beyond it, and models that differ.

    The rows are those of `compare_with_chance`, `compare_with_confounders`, `added_value` and
    `compare_models`. Claims use primary methods only. Claims on two models use all sites together.
    """
    out = [
        judge_claim(c, f"{_title(c)}: ranked better than by {c.other}")
        for c in (*chance, *over)
        if c.is_primary
    ]
    for role in sorted({c.role for c in added}):
        own = {c.other: c for c in added if c.role == role}
        out.append(judge_claim(own[GIVEN_AGE], f"{_title(own[GIVEN_AGE])}: adds to age"))
        out.append(_mgmt_beyond_idh(own[GIVEN_IDH], own[WITHIN]))
    return (*out, *(_differ(c) for c in others if c.is_primary and c.site == ALL_SITES))


def judge_claim(c: Comparison, claim: str) -> ClaimVerdict:
    """The claim that the difference is above 0."""
    if c.p is None or c.low is None or c.high is None:
        return ClaimVerdict(c.role, c.task, claim, None, f"{c.note or 'no interval'}; n = {c.n}")
    if c.p_holm is None:
        few = f"{c.n_rarest_class} cases of the rarest class, {MIN_CASES_PER_CLASS} are needed"
        return ClaimVerdict(c.role, c.task, claim, None, f"too few: {few}; n = {c.n}")
    direction = "; opposite direction" if c.high < 0 else ""
    return ClaimVerdict(
        c.role, c.task, claim, c.low > 0 and c.p_holm < ALPHA, _figures(c) + direction
    )


def _mgmt_beyond_idh(fixed: Comparison, within: Comparison) -> ClaimVerdict:
    """Supported if either comparison supports it; both are in one family of Holm's."""
    claim = f"{_title(fixed)}: adds to IDH"
    parts = [judge_claim(c, claim) for c in (fixed, within)]
    decided = [v.supported for v in parts if v.supported is not None]
    why = "; ".join(f"{c.other}: {v.reason}" for c, v in zip((fixed, within), parts, strict=True))
    return ClaimVerdict(fixed.role, fixed.task, claim, any(decided) if decided else None, why)


def _differ(c: Comparison) -> ClaimVerdict:
    """The claim that the difference is not 0, on either side."""
    claim = f"{_title(c)}: {c.model} and {c.other} differ"
    one = judge_claim(c, claim)
    if one.supported is None or c.high is None or c.p_holm is None or c.high >= 0:
        return one
    return ClaimVerdict(c.role, c.task, claim, c.p_holm < ALPHA, _figures(c))


def _figures(c: Comparison) -> str:
    """Text of a complete comparison; the AUC itself if the comparison is with chance."""
    of = {"auc": "AUC", "dice": "Dice", LOG_ODDS_RATIO: "log odds ratio"}[c.metric]
    is_auc = c.method == BY_CHANCE
    value, low, high = (
        f"{v + 0.5:.3f}" if is_auc else f"{v:+.3f}"
        for v in (c.difference, c.low, c.high)
        if v is not None
    )
    return f"{of} {value} (95 % interval {low} to {high}), p {c.p_holm:.3g} after Holm, n = {c.n}"


def _title(c: Comparison) -> str:
    return BY_ID[c.task].title if c.task in BY_ID else "Segmentation"
