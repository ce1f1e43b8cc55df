"""Regressions that a study compares with its networks: on age and sex alone, and on radiomics.

They are fitted from sums that hospitals send (`gliofed.radiomics.regression`), on the same
training and test cases as the networks of their seed and fold. A fitted model is saved and not
fitted again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from gliofed.data.patient_ids import normalise_id
from gliofed.data.splits import Split
from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import digest, model_folder
from gliofed.markers import MARKERS
from gliofed.radiomics.feature_table import (
    FeatureSubject,
    FeatureTable,
    age_and_sex,
    is_published,
    read_feature_tables,
    read_published,
)
from gliofed.radiomics.files import model_json, parse_model
from gliofed.radiomics.leave_one_out import model_inputs, train_model
from gliofed.radiomics.regression import (
    AGE_SEX,
    HARMONISED,
    RADIOMICS,
    RadiomicsModel,
    case_results,
)
from gliofed.reporting.html.formatting import count, model_title
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.study import Study
from gliofed.types import Case
from gliofed.version import __version__

MODELS: Final = (AGE_SEX, RADIOMICS, HARMONISED)
_ON_FEATURES: Final = (RADIOMICS, HARMONISED)


@dataclass(frozen=True)
class StudyFeatures:
    """names: (F,). values: "site/id" to (F,), NaN where unknown; cases without any are absent.
    files: names of the tables."""

    names: tuple[str, ...] = ()
    values: Mapping[str, Values] = field(default_factory=dict)
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Regression:
    """One regression to fit and test. Its seed determines the split only."""

    model: str
    seed: int
    split: Split

    @property
    def training(self) -> tuple[Case, ...]:
        """The cases of all hospitals that train."""
        return tuple(c for cases in self.split.train.values() for c in cases)

    def folder(self, root: Path) -> Path:
        """The folder of its model. root: the run's folder."""
        return model_folder(root, self.model, self.seed, self.split)

    def __str__(self) -> str:
        return f"{self.model}, {self.split.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Regressions:
    """All regressions of a run. results: by seed, fold and model. notes: sentences for the page.
    provenance: (name, value)."""

    results: tuple[CaseResult, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()


def read_study_features(study: Study, cases: Iterable[Case]) -> StudyFeatures:
    """The rows of the feature tables for cases of the study; none if no model needs them.

    gliofed's own tables are matched by hospital and case, the published ones of TCGA by the
    barcode in the case's id, however it is written. Raises DataError as `read_feature_tables` does,
    and if no case is in them.
    """
    if not set(_ON_FEATURES) & set(study.models):
        return StudyFeatures()
    paths = study.data.features
    published = {is_published(path) for path in paths}
    if len(published) > 1:
        raise DataError("data.features: published tables and own ones differ; give those of a kind")
    by_barcode = published == {True}
    table = read_published(paths, None) if by_barcode else read_feature_tables(paths, None)
    rows = {
        s.patient if by_barcode else f"{s.site}/{s.case}": row
        for s, row in zip(table.subjects, table.values, strict=True)
    }
    names = {str(c): normalise_id(c.id) if by_barcode else str(c) for c in cases}
    values = {case: rows[name] for case, name in names.items() if name in rows}
    if not values:
        raise DataError(
            f"data.features: no case of the study is in {', '.join(map(str, paths))}; they have "
            f"such as {next(iter(rows))!r}, the study such as {next(iter(names.values()))!r}"
        )
    return StudyFeatures(table.names, values, tuple(path.name for path in paths))


def plan_regressions(study: Study, splits: Mapping[int, Sequence[Split]]) -> tuple[Regression, ...]:
    """Every regression of a study, in the order in which they are fitted."""
    return tuple(
        Regression(model, seed, split)
        for seed in study.seeds
        for split in splits[seed]
        for model in MODELS
        if model in study.models
    )


def run_regressions(
    planned: Sequence[Regression],
    cases: Sequence[Case],
    features: StudyFeatures,
    out: Path,
    progress: Progress,
) -> Regressions:
    """Fit and test each regression; it leaves its model below `out`.

    cases: all that the study uses. A model of features neither trains on nor predicts cases
    without them. A regression that cannot be fitted gives no result, or one of NaN, and a note.
    Seeds that hold out the same patients share one model, which is fitted once.
    """
    fitted: list[tuple[Regression, RadiomicsModel | None]] = []
    by_id: dict[str, RadiomicsModel] = {}
    models = tuple(dict.fromkeys(r.model for r in planned))
    for done, regression in enumerate(planned):
        progress.update(done, len(planned), str(regression))
        fitted.append((regression, fit_regression(regression, features, out, by_id)))
    return Regressions(
        results=tuple(a for r, m in fitted if m is not None for a in _predict(r, m, features)),
        notes=(*_missing_notes(models, cases, features), *_unfitted_notes(fitted)),
        provenance=_provenance(models, cases, features),
    )


def fit_regression(
    regression: Regression, features: StudyFeatures, out: Path, by_id: dict[str, RadiomicsModel]
) -> RadiomicsModel | None:
    """The fitted model, from the disk or from `by_id` if present; None if no training case has a
    value."""
    table = _table(regression.model, regression.training, features)
    if not np.isfinite(model_inputs(table, regression.model).values).any():
        return None
    name = _model_id(regression.model, table)
    path = regression.folder(out) / f"model-{name[:12]}.json"
    if path.exists():
        return parse_model(path.read_text(), str(path))
    if name not in by_id:
        by_id[name] = train_model(table, regression.model)
    write_text(path, model_json(by_id[name]))
    return by_id[name]


def _model_id(model: str, table: FeatureTable) -> str:
    """A digest of the training data of a fitted model: cases, labels, people and features."""
    rows = [
        f"{s.site}/{s.case}/{s.patient}/{sorted(s.labels.values.items())}/{s.person}/"
        f"{v.tobytes().hex()}"
        for s, v in zip(table.subjects, table.values, strict=True)
    ]
    return digest(__version__, model, *table.names, *sorted(rows))


def _predict(
    regression: Regression, model: RadiomicsModel, features: StudyFeatures
) -> tuple[CaseResult, ...]:
    """Results for every test case that has the model's features, in the order of the networks.

    A hospital is harmonised by all cases that it has: its training cases are predicted too, and
    these results are dropped.
    """
    split, seed, name = regression.split, regression.seed, regression.model
    holdout = [c for cases in split.holdout.values() for c in cases]
    inside = model_inputs(_table(name, [*regression.training, *holdout], features), name)
    outside = model_inputs(_table(name, split.external, features), name)
    held_out = {(c.site, c.id) for c in holdout}
    inside_results = case_results(model, inside, split.fold, "holdout", seed)
    return (
        *case_results(model, outside, split.fold, "external", seed),
        *(r for r in inside_results if (r.site, r.case) in held_out),
    )


def _table(name: str, cases: Iterable[Case], features: StudyFeatures) -> FeatureTable:
    """The cases that a model can predict, with the features that it uses."""
    usable = [c for c in cases if name == AGE_SEX or str(c) in features.values]
    names = () if name == AGE_SEX else features.names
    rows = [features.values[str(c)] for c in usable if names]
    values = np.array(rows, float).reshape(len(usable), len(names))
    return FeatureTable(tuple(map(subject_of, usable)), names, values)


def subject_of(case: Case) -> FeatureSubject:
    """The case without its scans."""
    scans = frozenset(case.images)
    return FeatureSubject(case.id, case.site, case.patient, case.labels, case.person, scans)


def _missing_notes(
    models: Sequence[str], cases: Sequence[Case], features: StudyFeatures
) -> list[str]:
    """How many cases lack age, sex or features."""
    out = []
    if AGE_SEX in models:
        unknown = np.isnan(age_and_sex(_table(AGE_SEX, cases, features)).values).sum(0)
        if unknown.any():
            out.append(
                f"{model_title(AGE_SEX).capitalize()}: age is unknown in {unknown[0]} and sex in "
                f"{unknown[1]} of {len(cases)} cases; unknown counts as the mean."
            )
    lacking = sum(str(c) not in features.values for c in cases)
    if lacking and features.names:
        out.append(
            f"Radiomics: {lacking} of {len(cases)} cases have no features. They train no model of "
            "features and get no prediction of one; where they are tested, models are not compared."
        )
    return out


def _unfitted_notes(
    fitted: Sequence[tuple[Regression, RadiomicsModel | None]],
) -> list[str]:
    """Which models, or markers of a model, could not be fitted, how often and why."""
    planned = Counter(r.model for r, _ in fitted)
    gaps: Counter[tuple[str, str, str]] = Counter()
    for regression, model in fitted:
        if model is None:
            gaps[regression.model, "any marker", "no training case has a value"] += 1
            continue
        for marker in MARKERS:
            if note := model.markers[marker.id].note:
                gaps[regression.model, marker.title, f"{note} among training cases"] += 1
    return [
        f"{model_title(name).capitalize()}: no model of {marker} in {n} of "
        f"{count(planned[name], 'training')}: {why}."
        for (name, marker, why), n in gaps.items()
    ]


def _provenance(
    models: Sequence[str], cases: Sequence[Case], features: StudyFeatures
) -> tuple[tuple[str, str], ...]:
    if not models:
        return ()
    rows = [("regressions", ", ".join(map(model_title, models)))]
    if features.names:
        measured = sorted(str(c) for c in cases if str(c) in features.values)
        values = [f"{name}/{features.values[name].tobytes().hex()}" for name in measured]
        read = digest(*features.names, *values)
        text = f"{len(features.names)} of {len(measured)} cases, digest {read[:16]}"
        rows.append(("features", f"{', '.join(features.files)}: {text}"))
    return tuple(rows)
