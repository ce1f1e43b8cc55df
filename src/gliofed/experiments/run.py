"""Run a study from hospitals on disk to a results page; killed at any moment, it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import Split, make_splits
from gliofed.data.store import PreparedCase
from gliofed.errors import CheckpointError
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.documents import CARD, write_checklists_and_card
from gliofed.experiments.evaluation import reference_model, score_predictions, write_score_tables
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.model_folders import write_models
from gliofed.experiments.model_runs import ModelRun, plan_model_runs
from gliofed.experiments.parallel import train_in_parallel
from gliofed.experiments.patient_overlap import check_overlap, find_patient_overlap
from gliofed.experiments.regressions import (
    Regressions,
    StudyFeatures,
    plan_regressions,
    read_study_features,
    run_regressions,
)
from gliofed.experiments.results_page import page_content
from gliofed.experiments.run_facts import run_facts
from gliofed.experiments.seed_agreement import add_seed_agreement
from gliofed.experiments.sequence_ablation import (
    ablation_scores,
    predict_without_sequences,
    write_ablation,
)
from gliofed.experiments.train_and_test import test_model, train_model
from gliofed.federated.checkpoint import CommittedRound
from gliofed.reporting.checklists.statements import NO_STATEMENTS, Statements
from gliofed.reporting.study.page import write_study_page
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import Progress
from gliofed.study import Study, load_study, study_toml
from gliofed.types import Case


def run_study(
    study: Study,
    out: Path,
    store: Path,
    progress: Progress,
    processes: int = 1,
    statements: Statements = NO_STATEMENTS,
) -> FinishedRun:
    """Train and test every model of `study`, write tables and page below `out`.

    processes: how many models are trained side by side, each on its share of the cores.
    statements: what the authors say themselves, for checklists and card.
    What is already there of the same study is not done again. Raises CheckpointError where `out`
    holds another study or another process works there, and every error of the rooms below.
    """
    keep_memory()
    with alone_in(out):
        return _run(study, out, store, progress, processes, statements)


def _run(
    study: Study,
    out: Path,
    store: Path,
    progress: Progress,
    processes: int,
    statements: Statements,
) -> FinishedRun:
    machine = this_machine()
    cases: Mapping[str, Sequence[Case]] = read_sites(study.data)
    check_overlap(study, find_patient_overlap(study, cases, None, None))
    _claim(study, out)
    features = read_study_features(study, [c for own in cases.values() for c in own])
    cases, prepared, overlap, aside = prepare_study_cases(study, cases, store, progress)
    splits = {s: make_splits(study.data, cases, s) for s in study.seeds}
    cells = plan_model_runs(study, splits)
    trained: list[tuple[ModelRun, CommittedRound]] = []
    results: list[CaseResult] = []

    processes = max(1, min(processes, len(cells)))
    if processes > 1:
        progress.stage(f"training {len(cells)} models, {processes} side by side")
        train_in_parallel(study, cells, prepared, store, out, processes, progress)
    for number, cell in enumerate(cells, start=1):
        if processes == 1:
            progress.stage(f"model {number} of {len(cells)}: {cell}")
        state = train_model(study, cell, prepared, out, machine, progress)
        trained.append((cell, state))
        results += test_model(study, cell, state, prepared, out, machine)
    results = add_seed_agreement(study, trained, prepared, results, out, machine, progress)
    regressions = _regressions(study, splits, prepared, features, out, progress)
    results += regressions.results
    progress.stage("scores and intervals")
    write_text(out / "predictions.csv", predictions_csv(results))
    found = score_predictions(
        results, reference_model(results), study.calibration, study.score.bootstrap
    )
    hidden = predict_without_sequences(
        study, trained, found.reference, prepared, out, machine, progress
    )
    write_score_tables(found, out)
    write_ablation(ablation_scores(results, hidden, found.reference, study.score.bootstrap), out)
    progress.stage("page")
    content = page_content(
        study, splits, trained, regressions, results, found, prepared, machine, processes, overlap,
        aside,
    )  # fmt: skip
    if trained:
        facts = run_facts(
            study, out, splits, trained, found, prepared, machine, processes, overlap, aside
        )
        content = replace(content, checklists=write_checklists_and_card(out, facts, statements))
        write_models(study, trained, found, hidden, out, (out / CARD).read_text())
    write_study_page(content, out / "report.html")
    return FinishedRun(out / "report.html", found.rows, tuple(results))


def _regressions(
    study: Study,
    splits: Mapping[int, Sequence[Split]],
    prepared: Mapping[str, PreparedCase],
    features: StudyFeatures,
    out: Path,
    progress: Progress,
) -> Regressions:
    """All that the study asks for, and their notes told."""
    planned = plan_regressions(study, splits)
    if planned:
        progress.stage(f"fitting {len(planned)} regressions")
    cases = [p.case for p in prepared.values()]
    found = run_regressions(study, planned, cases, features, out, progress)
    for note in found.notes:
        progress.note(note)
    return found


def _claim(study: Study, out: Path) -> None:
    """Write the study into the folder, or see that it is the one already there."""
    path = out / "study.toml"
    if path.exists() and load_study(path).digest != study.digest:
        raise CheckpointError(
            f"{out} holds a run of another study ({path}); choose another --out, or delete it"
        )
    write_text(path, study_toml(study))
