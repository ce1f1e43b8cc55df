"""Scores, comparisons, confounders and calibration of predictions, as values and as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gliofed.calibration.evaluation import (
    CalibrationEvaluation,
    IntegratedTypeRow,
    ScalingRow,
    SetCoverageRow,
    ThresholdRow,
    evaluate_calibration,
)
from gliofed.calibration.model_agreement import AgreementRow, agreement_rows
from gliofed.calibration.selective import SelectiveRiskRow
from gliofed.evaluation.by_case.score_table import score_table
from gliofed.evaluation.claims import ClaimVerdict, collect_evidence
from gliofed.evaluation.comparison import Comparison
from gliofed.evaluation.files import predictions_csv, rows_csv, rows_json
from gliofed.evaluation.personal import own_personal
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.report_context import write_figures
from gliofed.runtime.files import write_text
from gliofed.study import FEDERATED, CalibrationConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


EVIDENCE: Final = "evidence"
"""The folder of all tables but the scores, within a run's."""
FIGURES: Final = "figures"
"""The folder of the page's figures for print."""


def score_predictions(
    results: Sequence[CaseResult], model: str, config: CalibrationConfig, replicates: int
) -> ScoredPredictions:
    """Score and compare all models in `results`.

    model: the reference model, the subject of claims and comparisons.
    replicates: of each bootstrap interval.
    """
    return score_calibrated(
        results, evaluate_calibration(results, model, config, replicates), replicates
    )


def score_calibrated(
    results: Sequence[CaseResult], calibration: CalibrationEvaluation, replicates: int
) -> ScoredPredictions:
    """As `score_predictions`, with a calibration that was evaluated already: of the reference
    model."""
    model = calibration.model
    scored = [*results, *own_personal(results), *calibration.results]
    with ThreadPoolExecutor(1) as beside:  # NumPy computes without Python's lock
        rows = beside.submit(score_table, scored, replicates, model)
        evidence = collect_evidence(results, replicates, model)
    return ScoredPredictions(
        rows.result(),
        tuple(results),
        evidence,
        calibration,
        model,
        agreement_rows(results, model, replicates),
    )


def reference_model(results: Sequence[CaseResult]) -> str:
    """The reference model if none is named: the federated one, else the first."""
    models = dict.fromkeys(r.model for r in results)
    return FEDERATED if FEDERATED in models else next(iter(models), FEDERATED)


def write_score_tables(
    scored: ScoredPredictions,
    out: Path,
    figures: Callable[[ScoredPredictions, Path], None] = write_figures,
) -> None:
    """`scores` into `out`, the other tables into `out`/evidence, each as CSV and JSON, and the
    figures into `out`/figures.

    figures: writes these into a folder. Each is written in one step; a table without rows has a
    header only. Raises OSError.
    """
    evidence, calibration = scored.evidence, scored.calibration
    assert evidence is not None
    assert calibration is not None
    cross = [c for matrix in evidence.cross_site for c in chain.from_iterable(matrix.cells)]
    tables: tuple[tuple[str, type[DataclassInstance], Sequence[DataclassInstance]], ...] = (
        ("verdicts", ClaimVerdict, evidence.verdicts),
        ("comparisons", Comparison, evidence.comparisons),
        (
            "confounders",
            Comparison,
            (*evidence.against_chance, *evidence.against_confounders, *evidence.added_value),
        ),
        ("confounders-alone", ScoreRow, evidence.confounder_scores),
        ("strata", ScoreRow, evidence.strata),
        ("models-by-hospital", ScoreRow, cross),
        ("calibrations", ScalingRow, calibration.scalings),
        ("prediction-sets", SetCoverageRow, calibration.sets),
        ("coverage-risk", SelectiveRiskRow, calibration.risks),
        ("kept-answers", ThresholdRow, calibration.thresholds),
        ("integrated-types", IntegratedTypeRow, calibration.integrated_types),
        ("outline-agreement", AgreementRow, scored.mask_agreement),
    )
    figures(scored, out / FIGURES)
    _write(out / "scores", ScoreRow, scored.rows)
    for name, kind, rows in tables:
        _write(out / EVIDENCE / name, kind, rows)
    write_text(out / EVIDENCE / "calibrated.csv", predictions_csv(calibration.results))


def _write(path: Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> None:
    write_text(path.with_suffix(".csv"), rows_csv(kind, rows))
    write_text(path.with_suffix(".json"), rows_json(rows))
