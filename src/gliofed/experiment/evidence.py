"""All that answers say: scores, comparisons, confounders, calibration, as values and as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gliofed.calibrate.abstain import RiskRow
from gliofed.calibrate.agreement import OutlineRow, outline_rows
from gliofed.calibrate.trial import FitRow, KeptRow, SetRow, TypeRow, trial
from gliofed.experiment.cells import FEDERATED
from gliofed.io.files import write_text
from gliofed.report.content import Scored
from gliofed.report.shown import write_figures
from gliofed.score.comparison import Comparison
from gliofed.score.evidence import Verdict, evidence
from gliofed.score.files import predictions_csv, rows_csv, rows_json
from gliofed.score.results import CaseResult, ScoreRow
from gliofed.score.table import score_table
from gliofed.study import Wishes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


EVIDENCE: Final = "evidence"
"""The folder of all tables but the scores, within a run's."""
FIGURES: Final = "figures"
"""The folder of the page's figures for print."""


def find(results: Sequence[CaseResult], model: str, wishes: Wishes, replicates: int) -> Scored:
    """model: the one that claims are made of, and that others are compared with."""
    tried = trial(results, model, wishes, replicates)
    rows = score_table([*results, *tried.results], replicates, model)
    return Scored(
        rows,
        tuple(results),
        evidence(results, replicates, model),
        tried,
        model,
        outline_rows(results, model, replicates),
    )


def claimed(results: Sequence[CaseResult]) -> str:
    """Of which model claims are made, where nobody says: the federated one, else the first."""
    models = dict.fromkeys(r.model for r in results)
    return FEDERATED if FEDERATED in models else next(iter(models), FEDERATED)


def write_findings(found: Scored, out: Path) -> None:
    """`scores` into `out`, the other tables into `out`/evidence, each as CSV and JSON, and the
    figures into `out`/figures.

    Each is written in one step; a table without a row has its head alone. Raises OSError.
    """
    proof, tried = found.evidence, found.trial
    assert proof is not None
    assert tried is not None
    cross = [c for matrix in proof.cross for c in chain.from_iterable(matrix.cells)]
    tables: tuple[tuple[str, type[DataclassInstance], Sequence[DataclassInstance]], ...] = (
        ("verdicts", Verdict, proof.verdicts),
        ("comparisons", Comparison, proof.comparisons),
        ("confounders", Comparison, (*proof.chance, *proof.gains, *proof.beyond)),
        ("confounders-alone", ScoreRow, proof.alone),
        ("strata", ScoreRow, proof.strata),
        ("models-by-hospital", ScoreRow, cross),
        ("calibrations", FitRow, tried.fits),
        ("prediction-sets", SetRow, tried.sets),
        ("coverage-risk", RiskRow, tried.risks),
        ("kept-answers", KeptRow, tried.kept),
        ("integrated-types", TypeRow, tried.types),
        ("outline-agreement", OutlineRow, found.outlines),
    )
    _write(out / "scores", ScoreRow, found.rows)
    for name, kind, rows in tables:
        _write(out / EVIDENCE / name, kind, rows)
    write_text(out / EVIDENCE / "calibrated.csv", predictions_csv(tried.results))
    write_figures(found, out / FIGURES)


def _write(path: Path, kind: type[DataclassInstance], rows: Sequence[DataclassInstance]) -> None:
    write_text(path.with_suffix(".csv"), rows_csv(kind, rows))
    write_text(path.with_suffix(".json"), rows_json(rows))
