"""The model "fusion" of a study: its network's IDH, features of its own masks, age and sex.

For each seed and fold, regressions on the features of predicted masks and on age and sex are fitted
on the training cases, and the weights of these and of the network on the cases held out at the
training hospitals (`gliofed.calibration.fusion`), all by sums over hospitals. External cases are
fused with these weights. A held-out case is fused with weights fitted without the fifth of patients
that it is in, so that its result is one of a case that nothing was fitted on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gliofed.calibration.calibrator import fit_calibration
from gliofed.calibration.evaluation import cases_by_site
from gliofed.calibration.fusion import (
    FUSED,
    Fusion,
    FusionInputs,
    LinearPart,
    MarkerFusion,
    WeightCases,
    fit_weights,
)
from gliofed.calibration.site_statistics import local_exchange
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.results import CaseResult, missing_sequences
from gliofed.experiments.mask_features import features_of_masks
from gliofed.experiments.model_runs import TrainedModelRun
from gliofed.experiments.regressions import Regression, StudyFeatures, fit_regression, subject_of
from gliofed.experiments.run_context import RunContext
from gliofed.markers import BY_ID
from gliofed.radiomics.cross_validation import FOLDS, fold_of
from gliofed.radiomics.feature_table import FeatureTable
from gliofed.radiomics.input_names import MASK_FEATURES
from gliofed.radiomics.regression import (
    AGE_SEX,
    RadiomicsModel,
    train_regressions,
)
from gliofed.radiomics.standardisation import sum_over_sites
from gliofed.reporting.html.formatting import count
from gliofed.runtime.progress import Progress
from gliofed.study import FEDERATED, FUSION, POOLED, CalibrationConfig
from gliofed.types import Case, Unknown

MarkerFusions = Mapping[str, MarkerFusion]


@dataclass(frozen=True)
class FoldFusion:
    """The fusion of one network. markers: fitted on all held-out cases; may be empty. without: by
    number of a fifth of the patients, fitted without these. mask: "site/id" to the features of its
    predicted mask."""

    markers: MarkerFusions
    without: tuple[MarkerFusions, ...]
    mask: Mapping[str, Values]

    def fuse(self, results: Iterable[CaseResult]) -> tuple[CaseResult, ...]:
        """The network's results with fused probabilities."""
        return tuple(self._fused(r) for r in results)

    def _fused(self, result: CaseResult) -> CaseResult:
        held_out = result.role == "holdout"
        markers = self.without[fold_of(result.patient)] if held_out else self.markers
        own = {m: np.array([p], float) for m, p in result.probabilities.items()}
        fused = Fusion(markers, {}).fuse(own, _inputs([result], self.mask))
        return replace(result, probabilities={m: tuple(p[0].tolist()) for m, p in fused.items()})


@dataclass(frozen=True)
class Fusions:
    """All fusions of a run. network: the model whose results are fused. results: of the model
    "fusion". by_fold: by seed and fold. notes: sentences for the page."""

    network: str = ""
    results: tuple[CaseResult, ...] = ()
    by_fold: Mapping[tuple[int, str], FoldFusion] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def fusion(self, key: tuple[int, str], config: CalibrationConfig) -> Fusion | None:
        """What the model folder of a seed and fold holds; None where nothing was fused.

        Without a held-out case, it has no calibration.
        """
        if key not in self.by_fold or not self.by_fold[key].markers:
            return None
        own = [r for r in self.results if (r.seed, r.fold) == key and r.role == "holdout"]
        if not own:
            return Fusion(self.by_fold[key].markers, {})
        calibration = fit_calibration(local_exchange(cases_by_site(own)), config)
        most = max(map(missing_sequences, own))
        return Fusion(self.by_fold[key].markers, {most: calibration})


def fuse_networks(
    context: RunContext,
    trained: Sequence[TrainedModelRun],
    results: Sequence[CaseResult],
    progress: Progress,
) -> Fusions:
    """Fuse the results of the federated networks, else of the pooled ones; empty where the study
    has no model "fusion".

    results: at least those of the networks. Features of predicted masks and the regressions on age
    and sex are read from the run's folder, or made and saved there.
    """
    study = context.study
    if FUSION not in study.models:
        return Fusions()
    network = FEDERATED if FEDERATED in study.models else POOLED
    by_fold: dict[tuple[int, str], FoldFusion] = {}
    fused: list[CaseResult] = []
    why: Counter[str] = Counter()
    for one in (t for t in trained if t.run.model == network):
        run = one.run
        key = (run.seed, run.split.fold)
        progress.stage(f"features of predicted masks: {run}")
        mask = features_of_masks(context, one, progress)
        own = [r for r in results if (r.model, r.seed, r.fold) == (network, *key)]
        regression = Regression(AGE_SEX, run.seed, run.split)
        people = fit_regression(regression, StudyFeatures(), context.out, {})
        masks = fit_masks(regression.training, mask)
        held = [r for r in own if r.role == "holdout"]
        by_fold[key] = fit_fold(held, (masks, people), mask)
        fused += [replace(r, model=FUSION) for r in by_fold[key].fuse(own)]
        if not by_fold[key].markers:
            why[_reason(people)] += 1
    notes = [
        f"Fusion: in {count(n, 'training')} nothing is joined to the network: {reason}."
        for reason, n in why.items()
    ]
    return Fusions(network, tuple(fused), by_fold, tuple(notes))


def fit_masks(cases: Sequence[Case], mask: Mapping[str, Values]) -> RadiomicsModel:
    """The regression on the features of the training cases' predicted masks."""
    values = np.array([mask[str(c)] for c in cases], float)
    table = FeatureTable(tuple(map(subject_of, cases)), MASK_FEATURES, values)
    return train_regressions(table.by_site(), FUSION)


def _reason(people: RadiomicsModel | None) -> str:
    if people is None:
        return "no training case has an age or a sex"
    return f"{people.markers[FUSED[0]].note} among training cases"


def fit_fold(
    held: Sequence[CaseResult],
    models: tuple[RadiomicsModel, RadiomicsModel | None],
    mask: Mapping[str, Values],
) -> FoldFusion:
    """The fusion of one network. held: its results for held-out cases. models: regressions on the
    features of `mask`, and on age and sex; None where no case has any."""
    without = [[r for r in held if fold_of(r.patient) != number] for number in range(FOLDS)]
    return FoldFusion(
        _fit_markers(held, models, mask),
        tuple(_fit_markers(w, models, mask) for w in without),
        mask,
    )


def _fit_markers(
    held: Sequence[CaseResult],
    models: tuple[RadiomicsModel, RadiomicsModel | None],
    mask: Mapping[str, Values],
) -> MarkerFusions:
    masks, people = models
    if people is None:
        return {}
    return {
        m: _fit_marker(held, m, (_part(masks, m), _part(people, m)), mask)
        for m in FUSED
        if not people.markers[m].note
    }


def _part(model: RadiomicsModel, marker: str) -> LinearPart:
    slopes = model.markers[marker].coefficients[0, 1:]
    return LinearPart(
        model.features,
        tuple(model.scaling.mean.tolist()),
        tuple(model.scaling.scale.tolist()),
        tuple(slopes.tolist()),
    )


def _fit_marker(
    held: Sequence[CaseResult],
    marker: str,
    parts: tuple[LinearPart, LinearPart],
    mask: Mapping[str, Values],
) -> MarkerFusion:
    """The fusion of one marker, its weights from the sums of each hospital's held-out cases."""
    start = MarkerFusion(marker, *parts, fit_weights_of([]), (0, 0))
    sites = dict.fromkeys(r.site for r in held)
    cases = [_weight_cases([r for r in held if r.site == s], start, mask) for s in sites]
    if not cases:
        return start
    counts = np.sum([np.bincount(c.truth, minlength=2) for c in cases], axis=0)
    return replace(start, weights=fit_weights_of(cases), cases=tuple(counts.tolist()))


def fit_weights_of(sites: Sequence[WeightCases]) -> tuple[float, ...]:
    """`fit_weights` from the sums of sites; without one, the prior's."""
    nothing = WeightCases(np.zeros((0, 3)), np.zeros(0, np.int64))
    return fit_weights(lambda at: sum_over_sites(s.sums(at) for s in (*sites, nothing)))


def _weight_cases(
    results: Sequence[CaseResult], fusion: MarkerFusion, mask: Mapping[str, Values]
) -> WeightCases:
    """One site's cases with a known class and a finite probability."""
    marker = BY_ID[fusion.marker]
    usable = [
        (r, label)
        for r in results
        if not isinstance(label := r.labels[marker.id], Unknown)
        and np.isfinite(r.probabilities[marker.id]).all()
    ]
    if not usable:
        return WeightCases(np.zeros((0, 3)), np.zeros(0, np.int64))
    probabilities = np.array([r.probabilities[marker.id] for r, _ in usable], float)
    truth = np.array([marker.classes.index(label) for _, label in usable], np.int64)
    return WeightCases(fusion.parts(probabilities, _inputs([r for r, _ in usable], mask)), truth)


def _inputs(results: Sequence[CaseResult], mask: Mapping[str, Values]) -> FusionInputs:
    values = np.array([mask[f"{r.site}/{r.case}"] for r in results], float)
    return FusionInputs(values, [r.person for r in results])
