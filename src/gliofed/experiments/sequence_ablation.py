"""Predicts test cases again with sequences dropped, to measure the effect of a missing sequence.

External cases: each scanned sequence is dropped in turn, to measure the loss of Dice and AUC. Cases
held out at training sites: one, two and three sequences are dropped, drawn by the case's name, to
calibrate the model for cases with that many missing.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.evaluation import cases_by_site
from gliofed.calibration.site_statistics import local_exchange
from gliofed.data.store import PreparedCase
from gliofed.evaluation.by_case.score_table import ALL_SITES, score_table
from gliofed.evaluation.files import predictions_csv, rows_csv, rows_json
from gliofed.evaluation.metrics.definitions import AUC, AUC_MEAN
from gliofed.evaluation.prediction_table import parse_predictions, result_key
from gliofed.evaluation.results import CaseResult, Role, ScoreRow, missing_sequences
from gliofed.experiments.case_scores import score_case
from gliofed.experiments.model_runs import TrainedModelRun
from gliofed.experiments.run_context import RunContext
from gliofed.experiments.train_and_test import trained_predictor
from gliofed.inference.forward import drop_sequences
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Mri

_METRICS: Final = ("dice", AUC, AUC_MEAN)
WITHOUT: Final = " without "
"""Between a model's name and the names of the dropped sequences."""


def predict_without_sequences(
    context: RunContext, trained: Sequence[TrainedModelRun], model: str, progress: Progress
) -> list[CaseResult]:
    """Results of every seed and fold of `model`; read from the disk if present.

    A result's model is `model`, WITHOUT and the dropped sequences, joined by "+".
    """
    chosen = [t for t in trained if t.run.model == model]
    results: list[CaseResult] = []
    for done, tested in enumerate(chosen):
        run = tested.run
        progress.update(done, len(chosen), f"sequences dropped, {run}")
        name = run.test_id(context.study, context.prepared)[:12]
        path = run.folder(context.out) / f"without-{name}.csv"
        if not path.exists():
            write_text(path, predictions_csv(tuple(_predict(context, tested))))
        results += parse_predictions(path.read_text(), str(path))
    return results


def dropped_sets(prepared: PreparedCase, role: Role) -> Iterator[frozenset[Mri]]:
    """The sets of sequences to drop of a case, one after the other; at least one sequence stays."""
    scanned = [s for s, present in zip(SEQUENCES, prepared.present, strict=True) if present]
    if role == "external":
        if len(scanned) > 1:
            yield from (frozenset({s}) for s in scanned)
        return
    draw = random.Random(str(prepared.case))  # noqa: S311  (which sequence, not a secret)
    for count in range(1, len(scanned)):
        yield frozenset(draw.choice([*itertools.combinations(scanned, count)]))


def _predict(context: RunContext, trained: TrainedModelRun) -> Iterator[CaseResult]:
    predictor = trained_predictor(context, trained)
    for role, case in trained.run.test_cases:
        scan = context.prepared[str(case)]
        for dropped in dropped_sets(scan, role):
            remaining = drop_sequences(scan, dropped)
            result = score_case(predictor.predict(remaining), remaining, trained.run.origin(role))
            name = "+".join(s for s in SEQUENCES if s in dropped)
            yield replace(result, model=f"{trained.run.model}{WITHOUT}{name}")


def ablation_scores(
    results: Sequence[CaseResult], dropped: Sequence[CaseResult], model: str, replicates: int
) -> tuple[ScoreRow, ...]:
    """Mean Dice and AUCs of external cases, all sites, with each sequence dropped.

    results: of `model` with all scanned sequences. dropped: as `predict_without_sequences` gives.
    `difference` of a row is against the same cases in `results`.
    """
    rows: list[ScoreRow] = []
    external = [r for r in dropped if r.role == "external"]
    complete = {result_key(r): r for r in results if r.model == model}
    for name in dict.fromkeys(r.model for r in external):
        ablated = [r for r in external if r.model == name]
        same_cases = [complete[result_key(replace(r, model=model))] for r in ablated]
        rows += [
            row
            for row in score_table([*same_cases, *ablated], replicates, model)
            if (row.model, row.site) == (name, ALL_SITES) and row.metric in _METRICS
        ]
    return tuple(rows)


def write_ablation(rows: Sequence[ScoreRow], out: Path) -> None:
    """Write `missing-sequences` into `out`, as CSV and JSON. Raises OSError."""
    write_text(out / "missing-sequences.csv", rows_csv(ScoreRow, rows))
    write_text(out / "missing-sequences.json", rows_json(rows))


def calibrations_by_missing(
    calibration: Calibration, results: Sequence[CaseResult], dropped: Sequence[CaseResult]
) -> Mapping[int, Calibration]:
    """Calibrations of one trained model by the number of missing sequences.

    calibration: fitted on the held-out cases in `results` with all scanned sequences; it is used up
    to the largest number of missing sequences among them. dropped: the same cases with sequences
    dropped; each larger number has its own calibration, fitted on these.
    """
    most = max((missing_sequences(r) for r in results if r.role == "holdout"), default=0)
    groups: dict[int, list[CaseResult]] = {}
    for result in dropped:
        if result.role == "holdout" and missing_sequences(result) > most:
            plain = replace(result, model=result.model.partition(WITHOUT)[0])
            groups.setdefault(missing_sequences(result), []).append(plain)
    fitted = {
        count: fit_calibration(local_exchange(cases_by_site(group)), calibration.config)
        for count, group in sorted(groups.items())
    }
    return {most: calibration, **fitted}
