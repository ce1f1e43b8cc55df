"""A trained model's predictions for its test cases, scored on the grid of each expert mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from gliofed.data.store import PreparedCase
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.case_scores import score_case
from gliofed.experiments.model_runs import ModelRun
from gliofed.federated.client import SiteMasks, SiteTest
from gliofed.inference.forward import predict, without_untrained
from gliofed.inference.native_grid import THRESHOLD
from gliofed.models.ensemble import Network
from gliofed.models.folder import TrainedModel
from gliofed.models.network import build_net
from gliofed.radiomics.mask_features import mask_features
from gliofed.runtime.device import Device
from gliofed.runtime.progress import NO_PROGRESS, Progress
from gliofed.study import Study
from gliofed.types import Prediction


@dataclass(frozen=True)
class CasePredictor:
    """A network or ensemble on a device. mirror: average with the prediction of the mirrored scan.
    untrained: markers whose heads were not trained, which get the probability NaN."""

    net: Network
    machine: Device
    mirror: bool
    untrained: tuple[str, ...] = ()

    def predict(self, prepared: PreparedCase) -> Prediction:
        """Predict one case on its prepared grid."""
        prediction = predict(self.net, prepared, self.machine, self.mirror)
        return without_untrained(prediction, self.untrained)

    def mask_features(self, prepared: PreparedCase) -> Values:
        """(F,) features of the mask that is predicted for one case."""
        return mask_features(prepared, self.predict(prepared).probability >= THRESHOLD)


def predict_test_cases(
    predictor: CasePredictor, run: ModelRun, prepared: Mapping[str, PreparedCase]
) -> Iterator[tuple[CaseResult, Prediction]]:
    """Predict and score every external case, then every case held out at the training sites.

    prepared: "site/id" to the prepared case, at least of the model's test cases.
    """
    for role, case in run.test_cases:
        scan = prepared[str(case)]
        prediction = predictor.predict(scan)
        yield score_case(prediction, scan, run.origin(role)), prediction


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


def site_masks(
    study: Study, run: ModelRun, prepared: Mapping[str, PreparedCase], machine: Device
) -> SiteMasks:
    """A function from weights to the features of the masks that they predict, of all training and
    held-out cases of `run`, which are of one site.

    prepared: "site/id" to the prepared case, at least of these.
    """
    training = [c for own in run.sites.values() for c in own]
    cases = [*training, *(c for role, c in run.test_cases if role == "holdout")]

    def features(weights: Mapping[str, Tensor]) -> Mapping[str, Values]:
        net = build_net(study.net, seed=0)
        net.load_state_dict(dict(weights))
        predictor = CasePredictor(net.to(machine.device), machine, study.score.mirror)
        return {str(c): predictor.mask_features(prepared[str(c)]) for c in cases}

    return features


def given_model_test(
    read: Callable[[], TrainedModel],
    run: ModelRun,
    prepared: Mapping[str, PreparedCase],
    machine: Device,
) -> SiteTest:
    """A function that tests the model of `read`, whatever weights it gets, as `site_test` does.

    read: called anew for each test.
    """

    def test(weights: Mapping[str, Tensor]) -> tuple[CaseResult, ...]:
        model = read()
        network = model.network().to(machine.device)
        predictor = CasePredictor(network, machine, model.recipe.mirror, model.recipe.untrained)
        return tuple(result for result, _ in predict_test_cases(predictor, run, prepared))

    return test
