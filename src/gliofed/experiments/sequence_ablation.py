"""What a trained model answers where sequences are missing: test cases again, with some hidden.

External cases: each sequence that is there, one after the other, to see what its loss costs. Cases
kept back at training sites: one, two and three of them, drawn from the case's name, to calibrate
the model for cases that lack as many.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gliofed.calibration.calibrator import Calibration, fit_calibration
from gliofed.calibration.site_statistics import CalibrationCases, local_exchange
from gliofed.data.store import PreparedCase
from gliofed.evaluation.by_case.score_table import ALL_SITES, score_table
from gliofed.evaluation.files import predictions_csv, rows_csv, rows_json
from gliofed.evaluation.prediction_table import parse_predictions, result_key
from gliofed.evaluation.results import CaseResult, Role, ScoreRow
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import score_case
from gliofed.experiments.train_and_test import trained_network
from gliofed.federated.checkpoint import CommittedRound
from gliofed.inference.forward import predict
from gliofed.inference.occlusion import drop_sequences
from gliofed.runtime.device import Device
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.study import Study
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Mri

WITHOUT: Final = " without "
"""Between a model's name and the sequences that it was not shown."""


def predict_without_sequences(
    study: Study,
    trained: Sequence[tuple[ModelRun, CommittedRound]],
    model: str,
    prepared: Mapping[str, PreparedCase],
    out: Path,
    machine: Device,
    progress: Progress,
) -> list[CaseResult]:
    """Of every seed and fold of `model`, from the disk where they are there already.

    An answer's model is `model`, WITHOUT and the hidden sequences, joined by "+".
    """
    own = [(cell, state) for cell, state in trained if cell.model == model]
    found: list[CaseResult] = []
    for done, (cell, state) in enumerate(own):
        progress.update(done, len(own), f"sequences hidden, {cell}")
        path = cell.folder(out) / f"without-{cell.test_id(study, prepared)[:12]}.csv"
        if not path.exists():
            results = tuple(_answers(study, cell, state, prepared, machine))
            write_text(path, predictions_csv(results))
        found += parse_predictions(path.read_text(), str(path))
    return found


def dropped_sets(prepared: PreparedCase, role: Role) -> Iterator[frozenset[Mri]]:
    """What is hidden of a case, one set after the other; at least one sequence stays."""
    there = [s for s, own in zip(SEQUENCES, prepared.present, strict=True) if own]
    if role == "external":
        if len(there) > 1:
            yield from (frozenset({s}) for s in there)
        return
    draw = random.Random(str(prepared.case))  # noqa: S311  (which sequence, not a secret)
    for count in range(1, len(there)):
        yield frozenset(draw.choice([*itertools.combinations(there, count)]))


def _answers(
    study: Study,
    cell: ModelRun,
    state: CommittedRound,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
) -> Iterator[CaseResult]:
    net = trained_network(study, cell, state, machine)
    for role, case in cell.tests:
        own = prepared[str(case)]
        for hidden in dropped_sets(own, role):
            less = drop_sequences(own, hidden)
            answer = predict(net, less, machine, study.score.mirror)
            name = "+".join(s for s in SEQUENCES if s in hidden)
            yield replace(
                score_case(answer, less, cell, role), model=f"{cell.model}{WITHOUT}{name}"
            )


def ablation_scores(
    results: Sequence[CaseResult], hidden: Sequence[CaseResult], model: str, replicates: int
) -> tuple[ScoreRow, ...]:
    """Mean Dice and AUCs of external cases, all sites, with each sequence hidden; `difference` is
    against the same cases of `model` as they were scanned."""
    rows: list[ScoreRow] = []
    external = [r for r in hidden if r.role == "external"]
    whole = {result_key(r): r for r in results if r.model == model}
    for name in dict.fromkeys(r.model for r in external):
        less = [r for r in external if r.model == name]
        same = [whole[result_key(replace(r, model=model))] for r in less]
        rows += [
            row
            for row in score_table([*same, *less], replicates, model)
            if (row.model, row.site) == (name, ALL_SITES) and row.metric in ("auc", "dice")
        ]
    return tuple(rows)


def write_ablation(rows: Sequence[ScoreRow], out: Path) -> None:
    """Write `missing-sequences` into `out`, as CSV and JSON. Raises OSError."""
    write_text(out / "missing-sequences.csv", rows_csv(ScoreRow, rows))
    write_text(out / "missing-sequences.json", rows_json(rows))


def calibrations_by_missing(
    natural: Calibration, results: Sequence[CaseResult], hidden: Sequence[CaseResult]
) -> Mapping[int, Calibration]:
    """Calibrations of one trained model by how many sequences a case lacks.

    natural: fitted on the cases kept back as they were scanned, `results` those cases' answers; it
    stands under the most that any of them lacks. hidden: the same cases' with sequences hidden; a
    calibration of its own for each greater number.
    """
    usual = max((_missing(r) for r in results if r.role == "holdout"), default=0)
    groups: dict[int, dict[str, list[CaseResult]]] = {}
    for result in hidden:
        if result.role == "holdout" and _missing(result) > usual:
            sites = groups.setdefault(_missing(result), {})
            plain = replace(result, model=result.model.partition(WITHOUT)[0])
            sites.setdefault(plain.site, []).append(plain)
    fitted = {
        count: fit_calibration(
            local_exchange({s: CalibrationCases(tuple(r)) for s, r in sites.items()}),
            natural.wishes,
        )
        for count, sites in sorted(groups.items())
    }
    return {usual: natural, **fitted}


def _missing(result: CaseResult) -> int:
    return len(SEQUENCES) - len(result.sequences or SEQUENCES)
