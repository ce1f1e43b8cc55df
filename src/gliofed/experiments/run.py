"""Run a study, from hospitals' files to a results page. A stopped run continues from the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import make_splits
from gliofed.errors import CheckpointError, StudyError
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.documents import CARD, write_checklists_and_card
from gliofed.experiments.evaluation import reference_model, score_predictions, write_score_tables
from gliofed.experiments.finished_run import FinishedRun
from gliofed.experiments.fusion import fuse_networks
from gliofed.experiments.model_folders import write_models
from gliofed.experiments.model_runs import TrainedModelRun, plan_model_runs
from gliofed.experiments.parallel import train_in_parallel
from gliofed.experiments.patient_overlap import check_overlap, find_patient_overlap
from gliofed.experiments.regressions import (
    Regression,
    Regressions,
    StudyFeatures,
    plan_regressions,
    read_study_features,
    run_regressions,
)
from gliofed.experiments.results_page import page_content
from gliofed.experiments.run_context import RunContext, RunOptions, StudyCases
from gliofed.experiments.run_facts import run_facts
from gliofed.experiments.seed_agreement import add_seed_agreement
from gliofed.experiments.sequence_ablation import (
    ablation_scores,
    predict_without_sequences,
    write_ablation,
)
from gliofed.experiments.train_and_test import test_model, train_model
from gliofed.federated.label_counts import not_trained_text
from gliofed.models.initial_weights import inherited_caution
from gliofed.reporting.checklists.statements import Statements
from gliofed.reporting.study.page import write_study_page
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study, load_study, study_toml

_DEFAULTS = RunOptions()


def run_study(
    study: Study,
    out: Path,
    progress: Progress = NO_PROGRESS,
    options: RunOptions = _DEFAULTS,
) -> FinishedRun:
    """Train and test every model of `study`; write models, tables and page below `out`.

    Work of the same study that is already in `out` is not repeated. Raises CheckpointError where
    `out` holds another study or another process works there, StudyError where the study continues a
    run of a federation, errors of `read_base` where it does not fit the model that it starts from,
    and every GliofedError of reading, preparing and training.
    """
    if study.federation.validates:
        raise StudyError(
            "federation.validates: a model is tested between hospitals; on one machine, use "
            "gliofed validate MODEL DATA"
        )
    if study.federation.continues:
        raise StudyError(
            "federation.continues: a run between hospitals; on one machine, give train.epochs and "
            "a new --out"
        )
    keep_memory()
    caution = inherited_caution(study)  # faults of the model are errors before scans are prepared
    with alone_in(out):
        store = options.store or out / "store"
        cases, features = _prepare(study, out, store, progress)
        alone = study.privacy is not None
        splits = {seed: make_splits(study.data, cases.sites, seed, alone) for seed in study.seeds}
        context = RunContext(study, out, this_machine(), cases.prepared, caution)
        runs = plan_model_runs(study, splits)
        for text in dict.fromkeys(
            not_trained_text(run.untrained(study, context.prepared)) for run in runs
        ):
            if text:
                progress.note(text)
        processes = max(1, min(options.processes, len(runs)))
        if processes > 1:  # results of the processes are then read from the disk
            train_in_parallel(context, runs, RunOptions(store, processes), progress)
        trained: list[TrainedModelRun] = []
        results: list[CaseResult] = []
        for number, run in enumerate(runs, start=1):
            if processes == 1:
                progress.stage(f"model {number} of {len(runs)}: {run}")
            trained.append(train_model(context, run, progress))
            results += test_model(context, trained[-1])
        results = add_seed_agreement(context, trained, results, progress)
        regressions = _fit_regressions(context, plan_regressions(study, splits), features, progress)
        results += regressions.results
        fusions = fuse_networks(context, trained, results, progress)
        results += fusions.results
        progress.stage("scores and intervals")
        write_text(out / "predictions.csv", predictions_csv(results))
        reference = reference_model(results)
        finished = FinishedRun(
            context=context,
            processes=processes,
            cases=cases,
            splits=splits,
            trained=tuple(trained),
            regressions=regressions,
            fusions=fusions,
            scored=score_predictions(results, reference, study.calibration, study.score.bootstrap),
            without_sequences=tuple(
                predict_without_sequences(context, trained, reference, progress)
            ),
        )
        _write_tables(finished)
        progress.stage("page")
        _write_reports(finished, options.statements)
        return finished


def _prepare(
    study: Study, out: Path, store: Path, progress: Progress
) -> tuple[StudyCases, StudyFeatures]:
    """The study's cases, prepared, and the rows of its feature tables.

    Shared patients that ids alone reveal, another study in `out` and wrong feature tables are
    errors before any scan is prepared.
    """
    sites = read_sites(study.data)
    check_overlap(study, find_patient_overlap(study, sites, None, None))
    _claim_folder(study, out)
    features = read_study_features(study, [c for cases in sites.values() for c in cases])
    return prepare_study_cases(study, sites, store, progress), features


def _fit_regressions(
    context: RunContext,
    planned: Sequence[Regression],
    features: StudyFeatures,
    progress: Progress,
) -> Regressions:
    """All regressions of the study; their notes are shown at once."""
    if planned:
        progress.stage(f"fitting {len(planned)} regressions")
    cases = [p.case for p in context.prepared.values()]
    regressions = run_regressions(planned, cases, features, context.out, progress)
    for note in regressions.notes:
        progress.note(note)
    return regressions


def _write_tables(finished: FinishedRun) -> None:
    scored, context = finished.scored, finished.context
    write_score_tables(scored, context.out)
    replicates = context.study.score.bootstrap
    ablation = ablation_scores(
        scored.results, finished.without_sequences, scored.reference, replicates
    )
    write_ablation(ablation, context.out)


def _write_reports(finished: FinishedRun, statements: Statements) -> None:
    """Write the page and, where networks were trained, checklists, card and model folders."""
    content, out = page_content(finished), finished.context.out
    if finished.trained:
        checklists = write_checklists_and_card(out, run_facts(finished), statements)
        content = replace(content, checklists=checklists)
        write_models(finished, (out / CARD).read_text())
    write_study_page(content, finished.page)


def _claim_folder(study: Study, out: Path) -> None:
    """Write the study into the folder. Raises CheckpointError where another study is there."""
    path = out / "study.toml"
    if path.exists() and load_study(path).digest != study.digest:
        raise CheckpointError(
            f"{out} holds a run of another study ({path}); choose another --out, or delete it"
        )
    write_text(path, study_toml(study))
