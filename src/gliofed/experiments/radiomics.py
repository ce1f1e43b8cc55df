"""Public functions of radiomics: extract the features of a study's cases, test regressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.data.formats.registry import read_sites
from gliofed.evaluation.files import predictions_csv
from gliofed.experiments.cases import prepare_and_compare
from gliofed.radiomics.feature_table import features_csv, read_feature_tables
from gliofed.radiomics.files import excluded_cases_csv, model_json, weights_csv
from gliofed.radiomics.leave_one_out import MODELS, leave_one_site_out, train_model
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import load_study

if TYPE_CHECKING:  # the library of features is an extra
    from gliofed.radiomics.features import CaseWithoutFeatures, FeatureSettings

FEATURES = "features.csv"


@dataclass(frozen=True)
class ExtractedFeatures:
    """table: features.csv. cases: number in it. left_out: excluded cases, each with the reason."""

    table: Path
    cases: int
    left_out: tuple[CaseWithoutFeatures, ...]


@dataclass(frozen=True)
class ExtractOptions:
    """How features are extracted.

    store: folder of prepared cases (default: `store` in `runs/<name of the study file>`).
    settings: of the features (default: `FeatureSettings()`). processes: number of worker processes.
    """

    store: Path | None = None
    settings: FeatureSettings | None = None
    processes: int = 1


def extract_features(
    study: Path,
    out: Path,
    options: ExtractOptions = ExtractOptions(),
    progress: Progress = NO_PROGRESS,
) -> ExtractedFeatures:
    """Measure every case of a study within its tumour mask; cases are prepared where needed.

    out: folder for features.csv, left-out.csv, settings.json and a file a case; starting again
    goes on from these. Raises GliofedError and its kinds. Needs the extra `gliofed[radiomics]`.
    """
    from gliofed.radiomics import features  # noqa: PLC0415 (its library is an extra)

    features.feature_names()  # reports a missing library before hours of preparation
    loaded, settings = load_study(study), options.settings or features.FeatureSettings()
    store = options.store or Path("runs") / study.stem / "store"
    with alone_in(out):
        prepared = prepare_and_compare(loaded, read_sites(loaded.data), store, progress)[1]
        progress.stage(f"measuring {len(prepared)} cases")
        table, left_out = features.extract_features(
            prepared, features.FeatureFolders(store, out), settings, options.processes, progress
        )
        write_text(out / "settings.json", features.settings_json(settings))
        write_text(out / "left-out.csv", excluded_cases_csv(left_out))
        write_text(out / FEATURES, features_csv(table))
    return ExtractedFeatures(out / FEATURES, len(table.subjects), left_out)


def leave_one_hospital_out(
    tables: Sequence[Path],
    out: Path,
    labels: Path | None = None,
    progress: Progress = NO_PROGRESS,
) -> Path:
    """Train on feature tables, each hospital left out in turn; return the file of predictions.

    tables: features.csv of one or several extractions, or the published tables of TCGA with
    `labels`, the table of Ceccarelli et al. 2016. Models: "radiomics", "radiomics_combat",
    "age_sex". `out` also gets each model trained on all hospitals, and its
    coefficients. Raises DataError.
    """
    table = read_feature_tables(tables, labels)
    with alone_in(out):
        progress.stage(f"leaving out {len(table.sites)} hospitals in turn")
        results = leave_one_site_out(table, progress)
        progress.stage("models of all hospitals")
        models = [train_model(table, name) for name in MODELS]
        for model in models:
            write_text(out / f"{model.name}.json", model_json(model))
        write_text(out / "coefficients.csv", weights_csv(models))
        write_text(out / "predictions.csv", predictions_csv(results))
    return out / "predictions.csv"
