"""What is left of a run for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gliofed.evaluation.results import CaseResult, ScoreRow


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves: the page, the tables beside it, and the rows for the terminal."""

    page: Path
    rows: tuple[ScoreRow, ...]
    results: tuple[CaseResult, ...]
