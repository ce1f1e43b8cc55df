"""Confounders: variables that predict a marker without its imaging signal, compared with a model.

Old patients have IDH-wildtype tumours, and IDH-mutant tumours have a methylated MGMT promoter: a
model that detects only age, or IDH, ranks both markers well. Each direction is taken from the
literature, never fitted; an AUC below 0.5 means that the association is reversed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import chdtrc

from gliofed.evaluation.by_case.score_table import ALL_SITES
from gliofed.evaluation.comparison import (
    BY_LIKELIHOOD,
    CHANCE,
    RESAMPLES_PER_TEST,
    ComparedSources,
    Comparison,
    chance_comparison,
    compare_pair,
    correct_by_method,
    holm_correction,
)
from gliofed.evaluation.intervals.analytic import Z_95
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.logistic_regression import LogisticSums, fit_logistic, logistic_sums
from gliofed.evaluation.metrics.definitions import LOG_ODDS_RATIO
from gliofed.evaluation.metrics.discrimination import ClassIndices
from gliofed.evaluation.paired import (
    paired_estimate,
    paired_predictions,
    ranked_by_score,
    results_by_role,
    score_row,
    too_few_note,
)
from gliofed.evaluation.results import CaseResult, ScoreGroup, ScoreRow
from gliofed.evaluation.strata import IDH_WILDTYPE, MARKER_STRATA, case_volumes
from gliofed.markers import BY_ID
from gliofed.types import Unknown

POSITIVE_CLASS: Final[Mapping[str, str]] = {
    "idh": "mutant",
    "codel_1p19q": "codeleted",
    "mgmt": "methylated",
    "grade": "4",
}
"""The class that is ranked against the rest; of the grade, 4 against 2 and 3."""
AGE: Final = "age alone"
SEX: Final = "sex alone"
VOLUME: Final = "tumour volume alone"
IDH_SCORE: Final = "IDH score alone"
IDH_TRUE: Final = "true IDH status alone"
SEPARATED_ERROR: Final = 100.0
"""Standard error (log odds for one standard deviation) above which classes count as separated."""
GIVEN_AGE: Final = "age held fixed"
GIVEN_SCORE: Final = "IDH score held fixed"
GIVEN_IDH: Final = "true IDH status held fixed"
WITHIN: Final = f"{CHANCE}, within {IDH_WILDTYPE}"
LOGIT_EPSILON: Final = 1e-6
"""Probabilities are clipped to this distance from 0 and 1 before the logit."""
CaseScore = Callable[[CaseResult], float | None]


@dataclass(frozen=True)
class Confounder:
    """up: markers whose positive class is associated with higher values; down: with lower ones. For
    sex, female is higher. source: of the direction."""

    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    source: str


CONFOUNDERS: Final[tuple[Confounder, ...]] = (
    Confounder(
        AGE,
        ("grade",),
        ("idh", "codel_1p19q", "mgmt"),
        "IDH: Yan et al. 2009, NEJM 360:765. 1p/19q, among all gliomas: Eckel-Passow et al. 2015, "
        "NEJM 372:2499. MGMT, as IDH: Noushmehr et al. 2010, Cancer Cell 17:510. Grade: Ostrom et "
        "al. 2020, Neuro-Oncology 22(S1):iv1.",
    ),
    Confounder(
        SEX,
        ("idh", "codel_1p19q", "mgmt"),
        ("grade",),
        "Glioblastoma has a larger excess of men than other gliomas: Ostrom et al. 2020, as above. "
        "MGMT is taken as IDH.",
    ),
    Confounder(
        VOLUME,
        ("idh", "codel_1p19q", "mgmt", "grade"),
        (),
        "No agreed direction; larger is taken. Read it on both sides of 0.5.",
    ),
    Confounder(IDH_SCORE, ("mgmt",), (), "Noushmehr et al. 2010, as above."),
    Confounder(IDH_TRUE, ("mgmt",), (), "Noushmehr et al. 2010, as above."),
)


def confounder_scores(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> tuple[ScoreRow, ...]:
    """The AUC of each confounder alone for each of its markers, as of a model of that name.

    On the cases of each role that `model` predicted and that have both values; without a value, but
    with n and why, where a class has fewer than `MIN_CASES_PER_CLASS` cases. `model` gives the IDH
    score and, for cases without an expert mask, the volume.
    """
    rows = []
    for role, own in results_by_role(results, model):
        scores = _scores(own)
        for confounder in CONFOUNDERS:
            for task in (*confounder.up, *confounder.down):
                score = _turned(scores[confounder.name], task in confounder.up)
                ranking = ranked_by_score(own, task, POSITIVE_CLASS[task], score)
                note = too_few_note(ranking)
                estimate = paired_estimate(ranking, 0 if note else replicates)
                group = ScoreGroup(confounder.name, role, ALL_SITES)
                rows.append(score_row(estimate, group, note))
    return tuple(rows)


def compare_with_confounders(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> tuple[Comparison, ...]:
    """The model's AUC less that of age alone for IDH, and of IDH alone for MGMT, both methods.

    IDH alone: the model's own IDH score, and the true status. Holm's family is these three of a
    role, each method for itself. A better score need not add information: see `added_value`.
    """
    out: list[Comparison] = []
    for role, own in results_by_role(results, model):
        scores = _scores(own)
        rows: list[Comparison] = []
        for task, name in (("idh", AGE), ("mgmt", IDH_SCORE), ("mgmt", IDH_TRUE)):
            score = _turned(scores[name], name != AGE)
            both = [r for r in own if score(r) is not None]
            one = paired_estimate(
                ranked_by_score(both, task, POSITIVE_CLASS[task], _probability(task)), replicates
            )
            base = paired_estimate(
                ranked_by_score(both, task, POSITIVE_CLASS[task], score), replicates
            )
            rows += compare_pair(one, base, ComparedSources(model, name, role, ALL_SITES))
        out += correct_by_method(rows)
    return tuple(out)


def added_value(
    results: Sequence[CaseResult], replicates: int, model: str = "federated"
) -> tuple[Comparison, ...]:
    """Added value of the model's score: for IDH beyond age, for MGMT beyond IDH.

    Each is a likelihood-ratio test of two logistic models, with the confounder alone and with the
    model's logit too. A further row is the AUC of MGMT within IDH-wildtype, less 0.5. Holm's family
    is these four of a role (see `RESAMPLES_PER_TEST`). With the IDH score held fixed, an MGMT score
    that is merely a second measurement of IDH still adds something; with the true status held fixed
    it does not.
    """
    out: list[Comparison] = []
    for role, own in results_by_role(results, model):
        scores = _scores(own)
        part = [r for s in MARKER_STRATA if s.title == IDH_WILDTYPE for r in own if s.holds(r)]
        within = paired_estimate(
            paired_predictions(part, "mgmt"), max(replicates, 4 * RESAMPLES_PER_TEST)
        )
        out += holm_correction(
            [
                _likelihood_ratio(own, "idh", _Adjustment(GIVEN_AGE, scores[AGE])),
                _likelihood_ratio(own, "mgmt", _Adjustment(GIVEN_SCORE, _idh_logit)),
                _likelihood_ratio(own, "mgmt", _Adjustment(GIVEN_IDH, scores[IDH_TRUE])),
                chance_comparison(within, model, role, WITHIN),
            ]
        )
    return tuple(out)


def _scores(results: Sequence[CaseResult]) -> dict[str, CaseScore]:
    """Each confounder as a function of a case; None if unknown."""
    sizes = case_volumes(results)
    return {
        AGE: _age,
        SEX: _female,
        VOLUME: lambda r: sizes.get((r.site, r.case)),
        IDH_SCORE: _probability("idh"),
        IDH_TRUE: _mutant,
    }


def _age(result: CaseResult) -> float | None:
    age = result.person.age
    return None if isinstance(age, Unknown) else age


def _female(result: CaseResult) -> float | None:
    sex = result.person.sex
    return None if isinstance(sex, Unknown) else float(sex == "F")


def _mutant(result: CaseResult) -> float | None:
    status = result.labels["idh"]
    return None if isinstance(status, Unknown) else float(status == POSITIVE_CLASS["idh"])


def _probability(task: str) -> CaseScore:
    """The model's probability of the marker's positive class."""
    place = BY_ID[task].classes.index(POSITIVE_CLASS[task])
    return lambda r: r.probabilities[task][place]


def _logit(task: str) -> Callable[[CaseResult], float]:
    place = BY_ID[task].classes.index(POSITIVE_CLASS[task])

    def logit(result: CaseResult) -> float:
        probability = np.clip(result.probabilities[task][place], LOGIT_EPSILON, 1 - LOGIT_EPSILON)
        return float(np.log(probability / (1 - probability)))

    return logit


def _idh_logit(result: CaseResult) -> float | None:
    return _logit("idh")(result)


def _turned(score: CaseScore, up: bool) -> CaseScore:
    def turned(result: CaseResult) -> float | None:
        value = score(result)
        return value if value is None or up else -value

    return turned


@dataclass(frozen=True)
class _Adjustment:
    """Title of what is held fixed, and its value for a case."""

    title: str
    value: CaseScore


def _likelihood_ratio(
    results: Sequence[CaseResult], task: str, adjustment: _Adjustment
) -> Comparison:
    """What the model's logit adds to the adjustment, in one likelihood-ratio test.

    results: of one model and role, at least one. With several seeds, the mean logit of each case.
    With true IDH status held fixed, only groups with both classes of the marker enter: the other
    groups carry no information once the status is known.
    """
    by_case: dict[tuple[str, str], list[CaseResult]] = defaultdict(list)
    for r in results:
        if not isinstance(r.labels[task], Unknown) and adjustment.value(r) is not None:
            by_case[r.site, r.case].append(r)
    cases = by_case.values()
    logit = _logit(task)
    truth = np.array([rs[0].labels[task] == POSITIVE_CLASS[task] for rs in cases], np.int64)
    base = np.array([np.mean([adjustment.value(r) for r in rs]) for rs in cases], float)
    score = np.array([np.mean([logit(r) for r in rs]) for rs in cases], float)
    patients = np.array([rs[0].patient for rs in cases])
    if adjustment.title == GIVEN_IDH:
        mixed = [v for v in (0.0, 1.0) if len(np.unique(truth[base == v])) == 2]
        used = np.isin(base, mixed)
        truth, base, score, patients = truth[used], base[used], score[used], patients[used]
    test = _tested(truth, base, score)
    note = test.note
    if not note and len(set(patients)) < len(patients):
        note = f"{len(truth)} cases of {len(set(patients))} patients, taken as if independent"
    return Comparison(
        model=results[0].model,
        other=adjustment.title,
        role=results[0].role,
        site=ALL_SITES,
        task=task,
        metric=LOG_ODDS_RATIO,
        n=len(truth),
        n_rarest_class=int(np.bincount(truth, minlength=2).min()) if len(truth) else 0,
        difference=test.slope,
        low=test.low,
        high=test.high,
        p=test.p,
        p_holm=None,
        method=BY_LIKELIHOOD,
        note=note,
    )


@dataclass(frozen=True)
class _AddedValue:
    slope: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


def _tested(truth: ClassIndices, base: Values, score: Values) -> _AddedValue:
    """The slope of the score beside the base, per standard deviation, and its p."""
    if len(truth) == 0:
        return _AddedValue(note="no case with both, in a group with both classes")
    if not np.isfinite(base).all() or not np.isfinite(score).all():
        return _AddedValue(note="a score is not finite")
    if len(np.unique(truth)) == 1:
        return _AddedValue(note="only one class present")
    if np.ptp(score) == 0:
        return _AddedValue(note="the model's score is the same for all cases")
    features = np.column_stack([np.ones(len(truth)), _scaled(base), _scaled(score)])

    def sums(columns: int) -> Callable[[Values], LogisticSums]:
        return lambda place: logistic_sums(place, features[:, :columns], truth)

    less, more = (fit_logistic(sums(columns), np.zeros((1, columns))) for columns in (2, 3))
    slope, error = float(more.coefficients[0, 2]), float(np.sqrt(more.covariance[2, 2]))
    if not (less.converged and more.converged and error < SEPARATED_ERROR):
        return _AddedValue(note="no fit: the classes are separated")
    p = float(chdtrc(1, max(0.0, 2 * (less.loss - more.loss))))
    return _AddedValue(slope, slope - Z_95 * error, slope + Z_95 * error, p)


def _scaled(values: Values) -> Values:
    spread = float(values.std())
    out: Values = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return out
