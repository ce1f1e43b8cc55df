"""A finished run as its folder has it: study, prepared cases, splits and exported models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import Split, make_splits
from gliofed.data.store import PreparedCase
from gliofed.errors import CheckpointError
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.model_folders import MODEL
from gliofed.experiments.model_runs import model_folder, test_cases_of
from gliofed.models.folder import RECORD, TrainedModel, read_model
from gliofed.runtime.progress import Progress
from gliofed.study import FEDERATED, Study, load_study
from gliofed.types import Case


@dataclass(frozen=True)
class AuditedModel:
    """One exported model of the run, and the cases that it was trained and tested on."""

    seed: int
    split: Split
    folder: Path

    def read(self) -> TrainedModel:
        """Raises ModelError as `read_model`."""
        return read_model(self.folder)


@dataclass(frozen=True)
class AuditedRun:
    """prepared: "site/id" to the prepared case, of all cases in use. models: by seed, then fold."""

    folder: Path
    study: Study
    prepared: Mapping[str, PreparedCase]
    models: tuple[AuditedModel, ...]

    def sites(self, cases: Mapping[str, Sequence[Case]]) -> Mapping[str, tuple[PreparedCase, ...]]:
        """The prepared cases of each site that has any of `cases`."""
        return {s: tuple(self.prepared[str(c)] for c in own) for s, own in cases.items() if own}


def open_run(folder: Path, store: Path, progress: Progress) -> AuditedRun:
    """Read a finished run; its scans are prepared where `store` does not have them.

    Raises CheckpointError: no run in the folder, no exported model, or patients that were tested
    are not those that the study holds out now; and errors of reading and preparing the scans.
    """
    study = _study_of(folder)
    cases = prepare_study_cases(study, read_sites(study.data), store, progress)
    results = parse_predictions(
        (folder / "predictions.csv").read_text(), str(folder / "predictions.csv")
    )
    kinds = [FEDERATED, *dict.fromkeys(r.model for r in results)]
    alone = study.privacy is not None
    models = [
        AuditedModel(seed, split, path)
        for seed in study.seeds
        for split in make_splits(study.data, cases.sites, seed, alone)
        if (path := _exported(folder, kinds, seed, split)) is not None
    ]
    if not models:
        raise CheckpointError(
            f"{folder}: has no exported model below models/; complete it with gliofed run "
            f"{folder / 'study.toml'} --out {folder}"
        )
    for model in models:
        _check_tested(model, results, folder)
    return AuditedRun(folder, study, cases.prepared, tuple(models))


def _study_of(folder: Path) -> Study:
    for name in ("study.toml", "predictions.csv"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: is not a finished run (it has no {name}); give the folder that "
                "gliofed run wrote with --out"
            )
    return load_study(folder / "study.toml")


def _exported(folder: Path, kinds: Sequence[str], seed: int, split: Split) -> Path | None:
    """The exported model of the first kind that has one."""
    folders = (model_folder(folder, kind, seed, split) / MODEL for kind in kinds)
    return next((f for f in folders if (f / RECORD).is_file()), None)


def _check_tested(model: AuditedModel, results: Sequence[CaseResult], folder: Path) -> None:
    """Raise CheckpointError where the run tested other cases than the split has now."""
    kind = model.folder.parent.name
    tested = {
        f"{r.site}/{r.case}"
        for r in results
        if (r.model.replace(":", "-"), r.seed, r.fold) == (kind, model.seed, model.split.fold)
    }
    held_out = {str(case) for _, case in test_cases_of(model.split)}
    if tested != held_out:
        other = sorted(tested ^ held_out)
        raise CheckpointError(
            f"{folder}: {kind}, {model.split.fold}, seed {model.seed} was tested on other cases "
            f"than the study holds out now ({len(other)} differ, the first {other[0]}); the "
            "data have changed: restore them, or run the study again in a new folder"
        )
