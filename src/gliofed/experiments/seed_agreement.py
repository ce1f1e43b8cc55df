"""How far the federated models of several seeds agree on each external case's segmentation."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gliofed.evaluation.metrics.segmentation import dice
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import ModelRun, TrainedModelRun, digest
from gliofed.experiments.predicted_masks import masks_file, read_mask
from gliofed.experiments.run_context import RunContext
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.study import FEDERATED


def add_seed_agreement(
    context: RunContext,
    trained: Sequence[TrainedModelRun],
    results: Sequence[CaseResult],
    progress: Progress,
) -> list[CaseResult]:
    """The same results, the federated external ones with `agreement`; unchanged with one seed.

    trained: tested models, whose predicted masks are on the disk. The agreement of a fold's models
    is saved below the run's folder and not computed again.
    """
    folds: dict[str, list[ModelRun]] = defaultdict(list)
    for model in trained:
        if model.run.model == FEDERATED:
            folds[model.run.split.fold].append(model.run)
    several = {fold: runs for fold, runs in folds.items() if len(runs) > 1}
    agreement: dict[tuple[str, str], float | None] = {}
    for done, (fold, runs) in enumerate(several.items()):
        progress.update(done, len(several), f"agreement of segmentations, {fold}")
        by_case = _fold_agreement(context, runs)
        agreement |= {(fold, case): value for case, value in by_case.items()}
    return [
        replace(r, agreement=agreement.get((r.fold, f"{r.site}/{r.case}")))
        if (r.model, r.role) == (FEDERATED, "external")
        else r
        for r in results
    ]


def _fold_agreement(context: RunContext, runs: Sequence[ModelRun]) -> Mapping[str, float | None]:
    """ "site/id" of each external case to the mean Dice over all pairs of the models' masks."""
    split = runs[0].split
    name = digest(*(run.test_id(context.study, context.prepared) for run in runs))
    path = context.out / "models" / f"agreement-{split.fold}-{name[:12]}.json"
    if path.exists():
        stored: dict[str, float | None] = json.loads(path.read_text())
        return stored
    agreement: dict[str, float | None] = {}
    for case in split.external:
        scan = context.prepared[str(case)]
        masks = [read_mask(masks_file(context, run), scan) for run in runs]
        pairs = [dice(a, b) for a, b in itertools.combinations(masks, 2)]
        agreement[str(case)] = float(np.mean(pairs))
    write_text(path, json.dumps(agreement, indent=1))
    return agreement
