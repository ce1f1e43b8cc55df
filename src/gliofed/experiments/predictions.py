"""A trained model's answers for held-out cases, scored on each scan's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from gliofed.data.nifti import read_nifti
from gliofed.data.store import PreparedCase
from gliofed.evaluation.metrics.segmentation import dice, hd95_mm, lesions, volume_ml
from gliofed.evaluation.results import CaseResult, Role
from gliofed.experiments.model_runs import ModelRun
from gliofed.federated.client import SiteTest
from gliofed.inference.forward import predict
from gliofed.inference.native_grid import THRESHOLD, mask_on_scan
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study
from gliofed.types import SEQUENCES, Placement, Prediction


def predict_and_score(
    net: MultiTaskNet,
    cell: ModelRun,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
    mirror: bool,
    progress: Progress = NO_PROGRESS,
) -> tuple[CaseResult, ...]:
    """One result for every external case and every held-out case of the training sites.

    prepared: "site/id" to the prepared case.
    """
    results = []
    for done, (role, case) in enumerate(cell.tests, start=1):
        own = prepared[str(case)]
        prediction = predict(net, own, machine, mirror)
        results.append(score_case(prediction, own, cell, role))
        progress.update(done, len(cell.tests), str(case))
    return tuple(results)


def site_test(
    study: Study,
    cell: ModelRun,
    site: str,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
    progress: Progress = NO_PROGRESS,
) -> SiteTest:
    """How a model answers for the cell's test cases of `site`.

    prepared: "site/id" to the prepared case, at least of these.
    """
    split = cell.split
    own = replace(
        cell,
        split=replace(
            split,
            external=tuple(c for c in split.external if c.site == site),
            holdout={s: c for s, c in split.holdout.items() if s == site},
        ),
    )

    def test(weights: Mapping[str, Tensor]) -> tuple[CaseResult, ...]:
        net = build_net(study.net.preset, study.net.stem, seed=0)
        net.load_state_dict(dict(weights))
        return predict_and_score(
            net.to(machine.device), own, prepared, machine, study.score.mirror, progress
        )

    return test


def score_case(
    prediction: Prediction, prepared: PreparedCase, cell: ModelRun, role: Role
) -> CaseResult:
    """Compare one prediction with what the experts said."""
    case = prepared.case
    overlap, distance, true_volume, counted = None, None, None, None
    spacing = np.linalg.norm(prediction.affine[:3, :3], axis=0)
    volume = volume_ml(prediction.probability >= THRESHOLD, spacing)
    if case.mask is not None and prepared.mask_placement is not None:
        drawn = read_nifti(case.mask)
        truth = drawn.data > 0
        if truth.any():
            x, y, z = truth.shape
            matrix = prepared.mask_placement.matrix
            found = mask_on_scan(prediction, Placement((x, y, z), drawn.affine, matrix))
            own = np.linalg.norm(drawn.affine[:3, :3], axis=0)
            overlap, distance = dice(truth, found), hd95_mm(truth, found, own)
            counted = lesions(truth, found, own)
            volume, true_volume = volume_ml(found, own), volume_ml(truth, own)
    return CaseResult(
        model=cell.model,
        seed=cell.seed,
        fold=cell.split.fold,
        role=role,
        case=case.id,
        site=case.site,
        patient=case.patient,
        labels=case.labels,
        probabilities=prediction.markers,
        dice=overlap,
        hd95_mm=distance,
        volume_ml=volume,
        volume_true_ml=true_volume,
        person=case.person,
        sequences=frozenset(
            s for s, there in zip(SEQUENCES, prepared.present, strict=True) if there
        ),
        lesions=counted,
    )
