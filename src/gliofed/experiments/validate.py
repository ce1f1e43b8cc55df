"""A given model, or another program's predictions, evaluated on labelled cases; nothing is trained.

<out>/predictions.csv        every case; `gliofed score` reads it beside other models' tables
<out>/scores.csv, evidence/, figures/, report.html      as `gliofed score` writes them
<out>/cases/                 a line a predicted case, so that a stopped command resumes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed.data.formats.registry import DEFAULT, inspect
from gliofed.errors import DataError, ModelError
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.results import ScoreRow
from gliofed.experiments.evaluation import score_calibrated, write_score_tables
from gliofed.experiments.model_predictions import predict_with_model
from gliofed.experiments.peer_predictions import read_peer_predictions
from gliofed.experiments.recalibration import Recalibration, recalibrate, write_recalibrated
from gliofed.experiments.validated import ValidatedPredictions
from gliofed.models.folder import RECORD, TrainedModel, read_model
from gliofed.reporting.study.scores_page import ScoresPageContent, write_scores_page
from gliofed.runtime.files import alone_in, write_text
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.types import Case, Unknown
from gliofed.version import __version__


@dataclass(frozen=True)
class ValidateOptions:
    """format_id: of the data sets, a row of `gliofed.data.formats.registry.FORMATS`. store: folder
    of prepared cases (default: `store` in the output folder). bootstrap: resamples of each
    interval. recalibrated: folder to write the model into with a calibration of these cases."""

    format_id: str = DEFAULT
    store: Path | None = None
    bootstrap: int = 2000
    recalibrated: Path | None = None


@dataclass(frozen=True)
class Validation:
    """rows: the score table. notes: what a reader must see, such as cases without a prediction.
    complete: whether every case has a prediction. page: the results page."""

    rows: tuple[ScoreRow, ...]
    notes: tuple[str, ...]
    complete: bool
    page: Path


def validate(
    predictions: Path,
    data: Sequence[Path],
    out: Path,
    options: ValidateOptions = ValidateOptions(),
    progress: Progress = NO_PROGRESS,
) -> Validation:
    """Evaluate on every case of `data`; write tables, figures and page into `out`.

    predictions: a model folder, or a folder of another program's masks and table. data: one data
    set a hospital, or data sets of several. Cases that a model predicted before are not predicted
    again. Raises ModelError and DataError: no model, no label, a case that cannot be prepared;
    CheckpointError where another process works in `out`; OSError.
    """
    cases = read_labelled_cases(data, options.format_id)
    is_model = (predictions / RECORD).is_file()
    if options.recalibrated is not None and not is_model:
        raise ModelError(
            f"{predictions}: is not a model (it has no {RECORD}); only one can be "
            "recalibrated, leave out --recalibrated"
        )
    with alone_in(out):
        if is_model:
            model = read_model(predictions)
            store = options.store or out / "store"
            found = predict_with_model(model, cases, out / "cases", store, progress)
            own = _recalibrated(model, found, options)
        else:
            found, own = read_peer_predictions(predictions, cases, progress), None
        progress.stage("scores and intervals")
        scored = score_calibrated(
            (*found.results, *found.fused, *(own.results if own else ())),
            found.calibration(options.bootstrap),
            options.bootstrap,
        )
        write_text(out / "predictions.csv", predictions_csv(scored.results))
        write_score_tables(scored, out)
        page = out / "report.html"
        recalibrated = (("recalibrated", own.text),) if own else ()
        facts = (("gliofed", __version__), *found.facts, *recalibrated)
        content = ScoresPageContent(
            found.model, scored, facts, found.notes, found.examples, found.excluded
        )
        write_scores_page(content, page)
    return Validation(scored.rows, found.notes, found.complete, page)


def read_labelled_cases(data: Sequence[Path], format_id: str) -> tuple[Case, ...]:
    """The cases of all data sets. Raises DataError where two have the same name or none has a label
    or mask."""
    names = Counter(path.resolve().name for path in data)
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise DataError(
            f"two data sets are named {repeated[0]!r}; a data set is one hospital with the name "
            "of its folder: rename one"
        )
    cases = tuple(case for path in data for case in inspect(path.resolve(), format_id).cases)
    if not any(map(_is_labelled, cases)):
        where = ", ".join(map(str, data))
        raise DataError(
            f"{where}: none of {len(cases)} cases has a mask or a known marker; add masks, or the "
            "markers' columns to participants.tsv (`gliofed predict` needs neither)"
        )
    return cases


def _is_labelled(case: Case) -> bool:
    known = any(not isinstance(value, Unknown) for value in case.labels.values.values())
    return known or case.mask is not None


def _recalibrated(
    model: TrainedModel, found: ValidatedPredictions, options: ValidateOptions
) -> Recalibration | None:
    """The model recalibrated on these cases and written, where that is asked for."""
    if options.recalibrated is None:
        return None
    own = recalibrate(model, found.results)
    write_recalibrated(model, own, options.recalibrated)
    return own
