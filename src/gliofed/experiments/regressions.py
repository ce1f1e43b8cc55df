"""Regressions beside a study's networks: on age and sex alone, and on radiomic features.

They are fitted by sums that hospitals send (`radiomics.model`). Who trains and who is tested is as
for the networks of their seed and fold. What is fitted is on the disk, and is not fitted again.
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
    """names: (F,). values: "site/id" to (F,), NaN where unknown; cases without any are absent."""

    names: tuple[str, ...] = ()
    values: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True)
class Regression:
    """One regression to fit and test. It knows no randomness beyond its seed's split."""

    model: str
    seed: int
    split: Split

    @property
    def training(self) -> tuple[Case, ...]:
        """The cases of all hospitals that train."""
        return tuple(c for own in self.split.train.values() for c in own)

    def folder(self, root: Path) -> Path:
        """Where its model lives below the run's folder."""
        return model_folder(root, self.model, self.seed, self.split)

    def __str__(self) -> str:
        return f"{self.model}, {self.split.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Regressions:
    """All of a run. results: by seed, fold and model. notes: what a reader must know of them.
    provenance: (name, value)."""

    results: tuple[CaseResult, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()


def read_study_features(study: Study, cases: Iterable[Case]) -> StudyFeatures:
    """What the study's tables have of its cases; nothing where no model asks for it.

    gliofed's own tables are matched by hospital and case, the published ones of TCGA by the
    barcode in the case's id, however it is written. Raises DataError as `read_tables` does, and
    where no case is in them.
    """
    if not set(_ON_FEATURES) & set(study.models):
        return StudyFeatures()
    paths = study.data.features
    published = {is_published(path) for path in paths}
    if len(published) > 1:
        raise DataError("data.features: published tables and own ones differ; give those of a kind")
    by_barcode = published == {True}
    table = read_published(paths, None) if by_barcode else read_feature_tables(paths, None)
    rows = {s.patient if by_barcode else f"{s.site}/{s.case}": row
            for s, row in zip(table.subjects, table.values, strict=True)}  # fmt: skip
    names = {str(c): normalise_id(c.id) if by_barcode else str(c) for c in cases}
    values = {case: rows[name] for case, name in names.items() if name in rows}
    if not values:
        raise DataError(
            f"data.features: no case of the study is in {', '.join(map(str, paths))}; they have "
            f"such as {next(iter(rows))!r}, the study such as {next(iter(names.values()))!r}"
        )
    return StudyFeatures(table.names, values)


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
    study: Study,
    planned: Sequence[Regression],
    cases: Sequence[Case],
    features: StudyFeatures,
    out: Path,
    progress: Progress,
) -> Regressions:
    """Fit and test each regression; it leaves its model below `out`.

    cases: all that the study uses. Cases without features neither train nor are answered where a
    model needs them. What cannot be fitted has no answer, or one of NaN, and a note. Seeds that
    hold out the same patients have the same model, which is fitted once.
    """
    fitted: list[tuple[Regression, RadiomicsModel | None]] = []
    known: dict[str, RadiomicsModel] = {}
    for done, regression in enumerate(planned):
        progress.update(done, len(planned), str(regression))
        fitted.append((regression, _fit(regression, features, out, known)))
    return Regressions(
        results=tuple(a for r, m in fitted if m is not None for a in _answers(r, m, features)),
        notes=(*_cases_in_words(study, cases, features), *_gaps_in_words(fitted)),
        provenance=_provenance(study, cases, features),
    )


def _fit(
    regression: Regression, features: StudyFeatures, out: Path, known: dict[str, RadiomicsModel]
) -> RadiomicsModel | None:
    """From the disk or from `known` where it is there; None where nothing is known of any
    training case."""
    table = _table(regression.model, regression.training, features)
    if not np.isfinite(model_inputs(table, regression.model).values).any():
        return None
    name = _model_id(regression.model, table)
    path = regression.folder(out) / f"model-{name[:12]}.json"
    if path.exists():
        return parse_model(path.read_text(), str(path))
    if name not in known:
        known[name] = train_model(table, regression.model)
    write_text(path, model_json(known[name]))
    return known[name]


def _model_id(model: str, table: FeatureTable) -> str:
    """The name that binds a fitted model to all that it was fitted on: cases, labels, people and
    features."""
    rows = [
        f"{s.site}/{s.case}/{s.patient}/{sorted(s.labels.values.items())}/{s.person}/"
        f"{v.tobytes().hex()}"
        for s, v in zip(table.subjects, table.values, strict=True)
    ]
    return digest(__version__, model, *table.names, *sorted(rows))


def _answers(
    regression: Regression, model: RadiomicsModel, features: StudyFeatures
) -> tuple[CaseResult, ...]:
    """For every test case of which the model knows something, in the order of the networks.

    A hospital is harmonised by all that it has, so that its training cases are answered besides
    and those answers dropped.
    """
    split, seed, name = regression.split, regression.seed, regression.model
    held = [c for own in split.holdout.values() for c in own]
    home = model_inputs(_table(name, [*regression.training, *held], features), name)
    away = model_inputs(_table(name, split.external, features), name)
    kept = {(c.site, c.id) for c in held}
    at_home = case_results(model, home, split.fold, "holdout", seed)
    return (
        *case_results(model, away, split.fold, "external", seed),
        *(r for r in at_home if (r.site, r.case) in kept),
    )


def _table(name: str, cases: Iterable[Case], features: StudyFeatures) -> FeatureTable:
    """The cases that a model can answer, with the features that it may see of them."""
    own = [c for c in cases if name == AGE_SEX or str(c) in features.values]
    names = () if name == AGE_SEX else features.names
    rows = [features.values[str(c)] for c in own if names]
    values = np.array(rows, float).reshape(len(own), len(names))
    return FeatureTable(tuple(map(_subject, own)), names, values)


def _subject(case: Case) -> FeatureSubject:
    scans = frozenset(case.images)
    return FeatureSubject(case.id, case.site, case.patient, case.labels, case.person, scans)


def _cases_in_words(study: Study, cases: Sequence[Case], features: StudyFeatures) -> list[str]:
    """Of how many cases the models know nothing, or not all."""
    out = []
    if AGE_SEX in study.models:
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
            "features and get no answer of one; where they are tested, models are not compared."
        )
    return out


def _gaps_in_words(
    fitted: Sequence[tuple[Regression, RadiomicsModel | None]],
) -> list[str]:
    """Which models, or markers of a model, could not be fitted, how often and why."""
    asked = Counter(r.model for r, _ in fitted)
    gaps: Counter[tuple[str, str, str]] = Counter()
    for regression, model in fitted:
        if model is None:
            gaps[regression.model, "any marker", "nothing is known of any training case"] += 1
            continue
        for marker in MARKERS:
            if note := model.markers[marker.id].note:
                gaps[regression.model, marker.title, f"{note} among training cases"] += 1
    return [
        f"{model_title(name).capitalize()}: no model of {marker} in {n} of "
        f"{count(asked[name], 'training')}: {why}."
        for (name, marker, why), n in gaps.items()
    ]


def _provenance(
    study: Study, cases: Sequence[Case], features: StudyFeatures
) -> tuple[tuple[str, str], ...]:
    names = [m for m in MODELS if m in study.models]
    if not names:
        return ()
    rows = [("regressions", ", ".join(map(model_title, names)))]
    if features.names:
        own = sorted(str(c) for c in cases if str(c) in features.values)
        read = digest(*features.names, *(f"{n}/{features.values[n].tobytes().hex()}" for n in own))
        files = ", ".join(path.name for path in study.data.features)
        text = f"{files}: {len(features.names)} of {len(own)} cases, digest {read[:16]}"
        rows.append(("features", text))
    return tuple(rows)
