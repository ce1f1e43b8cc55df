"""Scores of the predictions of any model, also of one trained elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gliofed.errors import DataError
from gliofed.evaluation.mapped_tables import convert_tables
from gliofed.evaluation.prediction_table import parse_predictions, result_key
from gliofed.evaluation.results import CaseResult, ScoreRow
from gliofed.experiments.evaluation import reference_model, score_predictions, write_score_tables
from gliofed.experiments.print_figures import figures_beside
from gliofed.reporting.study.scores_page import ScoresPageContent, write_scores_page
from gliofed.runtime.files import write_text
from gliofed.study import CalibrationConfig, load_study
from gliofed.version import __version__

MAPPING: Final = ".toml"
TABLES: Final = "tables"
"""The folder of converted tables."""


def score(
    files: Sequence[Path],
    out: Path,
    reference: str = "",
    bootstrap: int = 2000,
    study: Path | None = None,
) -> tuple[ScoreRow, ...]:
    """Score tables of predictions; write tables, figures and the page `report.html`.

    files: as docs/how-to/score-any-model.md says; a table without the column `model` is a model of
    the file's name. A mapping file (TOML) stands for the tables that it names; the table made of
    them is written as `tables/NAME.csv`. reference: the model that claims are made of, and that
    others are compared with (default: "federated", else the first). bootstrap: how many resamples.
    study: whose [calibration] is asked for; defaults without one. Raises DataError, and StudyError.
    """
    config = load_study(study).calibration if study else CalibrationConfig()
    results: list[CaseResult] = []
    notes: list[str] = []
    for path in files:
        if path.suffix.lower() == MAPPING:
            converted = convert_tables(path)
            table = out / TABLES / f"{path.stem}.csv"
            write_text(table, converted.text)
            results += parse_predictions(converted.text, str(table), path.stem)
            notes += [f"{path.name}: {note}" for note in converted.notes]
        else:
            results += parse_predictions(_text(path), str(path), path.stem)
    names = ", ".join(map(str, files))
    if not results:
        raise DataError(f"{names}: no line below the header; expected a line a case")
    seen: set[tuple[object, ...]] = set()
    for result in results:
        if result_key(result) in seen:
            raise DataError(
                f"{names}: model {result.model!r} has case {result.case!r} in two of the files;"
                " rename one file, or its column 'model'"
            )
        seen.add(result_key(result))
    models = list(dict.fromkeys(a.model for a in results))
    if reference and reference not in models:
        raise DataError(f"no model {reference!r} in {names}; there are: {', '.join(models)}")
    facts = (("gliofed", __version__), ("tables", names), ("resamples", f"{bootstrap:,}"))
    title = ", ".join(path.stem for path in files)
    with figures_beside(len(results)) as write_figures:
        chosen = reference or reference_model(results)
        scored = score_predictions(results, chosen, config, bootstrap)
        write_score_tables(scored, out, write_figures)
        content = ScoresPageContent(title, scored, facts, notes=tuple(notes))
        write_scores_page(content, out / "report.html")
    return scored.rows


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the table as CSV UTF-8") from None
