"""How far the federated models of several seeds agree on each external case's outline."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gliofed.calibration.segmentation_uncertainty import ensemble_uncertainty
from gliofed.data.store import PreparedCase
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import FEDERATED, ModelRun, digest
from gliofed.experiments.train_and_test import trained_network
from gliofed.federated.checkpoint import CommittedRound
from gliofed.inference.forward import predict
from gliofed.inference.native_grid import THRESHOLD
from gliofed.runtime.device import Device
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import Progress
from gliofed.study import Study

Trained = tuple[ModelRun, CommittedRound]


def add_seed_agreement(
    study: Study,
    trained: Sequence[Trained],
    prepared: Mapping[str, PreparedCase],
    results: Sequence[CaseResult],
    out: Path,
    machine: Device,
    progress: Progress,
) -> list[CaseResult]:
    """The same results, the federated external ones with `agreement`; of one seed, as they were.

    How far a fold's models agree is kept below `out` and not found anew.
    """
    folds: dict[str, list[Trained]] = defaultdict(list)
    for cell, state in trained:
        if cell.model == FEDERATED:
            folds[cell.split.fold].append((cell, state))
    several = {fold: own for fold, own in folds.items() if len(own) > 1}
    found: dict[tuple[str, str], float | None] = {}
    for done, (fold, own) in enumerate(several.items()):
        progress.update(done, len(several), f"agreement on outlines, {fold}")
        agreed = _of_fold(study, own, prepared, out, machine)
        found |= {(fold, case): value for case, value in agreed.items()}
    return [
        replace(r, agreement=found.get((r.fold, f"{r.site}/{r.case}")))
        if (r.model, r.role) == (FEDERATED, "external")
        else r
        for r in results
    ]


def _of_fold(
    study: Study,
    own: Sequence[Trained],
    prepared: Mapping[str, PreparedCase],
    out: Path,
    machine: Device,
) -> Mapping[str, float | None]:
    """ "site/id" of each external case to the mean Dice between the models' outlines."""
    split = own[0][0].split
    name = digest(*(cell.test_id(study, prepared) for cell, _ in own))
    path = out / "models" / f"agreement-{split.fold}-{name[:12]}.json"
    if path.exists():
        kept: dict[str, float | None] = json.loads(path.read_text())
        return kept
    nets = [trained_network(study, cell, state, machine) for cell, state in own]
    found = {}
    for case in split.external:
        scan = prepared[str(case)]
        maps = [predict(net, scan, machine, study.score.mirror).probability for net in nets]
        spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
        found[str(case)] = ensemble_uncertainty(maps, spacing, THRESHOLD).agreement
    write_text(path, json.dumps(found, indent=1))
    return found
