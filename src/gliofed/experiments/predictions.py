"""A trained model's predictions for its test cases, scored on the grid of each expert mask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gliofed.data.masks import read_mask
from gliofed.data.store import PreparedCase
from gliofed.evaluation.metrics.segmentation import dice, hd95_mm, lesions, volume_ml
from gliofed.evaluation.results import CaseResult, Role
from gliofed.experiments.model_runs import ModelRun
from gliofed.federated.client import SiteTest
from gliofed.inference.forward import predict, without_untrained
from gliofed.inference.native_grid import THRESHOLD, mask_on_scan
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study
from gliofed.types import SEQUENCES, Placement, Prediction


@dataclass(frozen=True)
class CasePredictor:
    """A network on a device. mirror: average with the prediction of the mirrored scan. untrained:
    markers whose heads were not trained, which get the probability NaN."""

    net: MultiTaskNet
    machine: Device
    mirror: bool
    untrained: tuple[str, ...] = ()

    def predict(self, prepared: PreparedCase) -> Prediction:
        """Predict one case on its prepared grid."""
        prediction = predict(self.net, prepared, self.machine, self.mirror)
        return without_untrained(prediction, self.untrained)


def predict_test_cases(
    predictor: CasePredictor, run: ModelRun, prepared: Mapping[str, PreparedCase]
) -> Iterator[tuple[CaseResult, Prediction]]:
    """Predict and score every external case, then every case held out at the training sites.

    prepared: "site/id" to the prepared case, at least of the model's test cases.
    """
    for role, case in run.test_cases:
        scan = prepared[str(case)]
        prediction = predictor.predict(scan)
        yield score_case(prediction, scan, run, role), prediction


def site_test(
    study: Study,
    run: ModelRun,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
    progress: Progress = NO_PROGRESS,
) -> SiteTest:
    """A function that tests weights on all test cases of `run`, which are of one site.

    prepared: "site/id" to the prepared case, at least of these.
    """

    def test(weights: Mapping[str, Tensor]) -> tuple[CaseResult, ...]:
        net = build_net(study.net, seed=0)
        net.load_state_dict(dict(weights))
        predictor = CasePredictor(net.to(machine.device), machine, study.score.mirror)
        results = []
        for result, _ in predict_test_cases(predictor, run, prepared):
            results.append(result)
            progress.update(len(results), len(run.test_cases), f"{result.site}/{result.case}")
        return tuple(results)

    return test


def score_case(
    prediction: Prediction, prepared: PreparedCase, run: ModelRun, role: Role
) -> CaseResult:
    """Compare one prediction with the case's labels and expert mask.

    Without an expert mask, or with an empty one, there is no Dice, and the predicted volume is
    measured on the prepared grid.
    """
    case = prepared.case
    overlap, distance, true_volume, lesion_counts = None, None, None, None
    spacing = np.linalg.norm(prediction.affine[:3, :3], axis=0)
    volume = volume_ml(prediction.probability >= THRESHOLD, spacing)
    if case.mask is not None and prepared.mask_placement is not None:
        expert = read_mask(case.mask)
        truth = expert.data > 0
        if truth.any():
            x, y, z = truth.shape
            matrix = prepared.mask_placement.matrix
            mask = mask_on_scan(prediction, Placement((x, y, z), expert.affine, matrix))
            spacing = np.linalg.norm(expert.affine[:3, :3], axis=0)
            overlap, distance = dice(truth, mask), hd95_mm(truth, mask, spacing)
            lesion_counts = lesions(truth, mask, spacing)
            volume, true_volume = volume_ml(mask, spacing), volume_ml(truth, spacing)
    return CaseResult(
        model=run.model,
        seed=run.seed,
        fold=run.split.fold,
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
            s for s, scanned in zip(SEQUENCES, prepared.present, strict=True) if scanned
        ),
        lesions=lesion_counts,
    )
