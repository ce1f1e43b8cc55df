"""A study's finished run: its page, tables and models are all made from this one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliofed.evaluation.results import CaseResult, ScoreRow

if TYPE_CHECKING:  # the public API names `FinishedRun` without loading torch
    from gliofed.data.splits import Split
    from gliofed.experiments.fusion import Fusions
    from gliofed.experiments.model_runs import TrainedModelRun
    from gliofed.experiments.regressions import Regressions
    from gliofed.experiments.run_context import RunContext, StudyCases
    from gliofed.reporting.study.content import ScoredPredictions
    from gliofed.types import Case


@dataclass(frozen=True)
class FinishedRun:
    """Everything that a run trained, predicted and scored.

    processes: models trained at the same time. splits: seed to its folds. trained: in the order of
    the study's plan. scored: of all models, the regressions too. without_sequences: results of the
    reference model on test cases with sequences dropped.
    """

    context: RunContext
    processes: int
    cases: StudyCases
    splits: Mapping[int, tuple[Split, ...]]
    trained: tuple[TrainedModelRun, ...]
    regressions: Regressions
    fusions: Fusions
    scored: ScoredPredictions
    without_sequences: tuple[CaseResult, ...]

    @property
    def page(self) -> Path:
        """The results page."""
        return self.context.out / "report.html"

    @property
    def rows(self) -> tuple[ScoreRow, ...]:
        """The score table."""
        return self.scored.rows

    @property
    def results(self) -> tuple[CaseResult, ...]:
        """One result for each model, seed, fold and test case."""
        return self.scored.results

    @property
    def used_cases(self) -> tuple[Case, ...]:
        """All cases that are not excluded, in the order in which they were read."""
        return tuple(p.case for p in self.cases.prepared.values())

    @property
    def folds(self) -> tuple[tuple[int, Split], ...]:
        """Each seed with each of its folds."""
        return tuple((seed, split) for seed, folds in self.splits.items() for split in folds)
