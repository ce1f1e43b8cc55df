"""All that answers say: scores, comparisons, confounders, calibration, as values and as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gliofed.calibration.evaluation import (
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
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.experiments.model_runs import FEDERATED
from gliofed.reporting.study.content import ScoredPredictions
from gliofed.reporting.study.report_context import write_figures
from gliofed.runtime.files import write_text
from gliofed.study import CalibrationConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


EVIDENCE: Final = "evidence"
"""The folder of all tables but the scores, within a run's."""
FIGURES: Final = "figures"
"""The folder of the page's figures for print."""


def score_predictions(
    results: Sequence[CaseResult], model: str, wishes: CalibrationConfig, replicates: int
) -> ScoredPredictions:
    """model: the one that claims are made of, and that others are compared with."""
    tried = evaluate_calibration(results, model, wishes, replicates)
    rows = score_table([*results, *tried.results], replicates, model)
    return ScoredPredictions(
        rows,
        tuple(results),
        collect_evidence(results, replicates, model),
        tried,
        model,
        agreement_rows(results, model, replicates),
    )


def reference_model(results: Sequence[CaseResult]) -> str:
    """Of which model claims are made, where nobody says: the federated one, else the first."""
    models = dict.fromkeys(r.model for r in results)
    return FEDERATED if FEDERATED in models else next(iter(models), FEDERATED)


def write_score_tables(found: ScoredPredictions, out: Path) -> None:
    """`scores` into `out`, the other tables into `out`/evidence, each as CSV and JSON, and the
    figures into `out`/figures.

    Each is written in one step; a table without a row has its head alone. Raises OSError.
    """
    proof, tried = found.evidence, found.trial
    assert proof is not None
    assert tried is not None
    cross = [c for matrix in proof.cross for c in chain.from_iterable(matrix.cells)]
    tables: tuple[tuple[str, type[DataclassInstance], Sequence[DataclassInstance]], ...] = (
        ("verdicts", ClaimVerdict, proof.verdicts),
        ("comparisons", Comparison, proof.comparisons),
        ("confounders", Comparison, (*proof.chance, *proof.gains, *proof.beyond)),
        ("confounders-alone", ScoreRow, proof.alone),
        ("strata", ScoreRow, proof.strata),
        ("models-by-hospital", ScoreRow, cross),
        ("calibrations", ScalingRow, tried.fits),
        ("prediction-sets", SetCoverageRow, tried.sets),
        ("coverage-risk", SelectiveRiskRow, tried.risks),
        ("kept-answers", ThresholdRow, tried.kept),
        ("integrated-types", IntegratedTypeRow, tried.types),
        ("outline-agreement", AgreementRow, found.outlines),
    )
    _write(out / "scores", ScoreRow, found.rows)
    for name, kind, rows in tables:
        _write(out / EVIDENCE / name, kind, rows)
    write_text(out / EVIDENCE / "calibrated.csv", predictions_csv(tried.results))
    write_figures(found, out / FIGURES)


def _write(path: Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> None:
    write_text(path.with_suffix(".csv"), rows_csv(kind, rows))
    write_text(path.with_suffix(".json"), rows_json(rows))
