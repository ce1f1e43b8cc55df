"""Trains and tests one model of a study, continuing from what is on the disk."""

from __future__ import annotations

from pathlib import Path

from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import ModelRun, TrainedModelRun
from gliofed.experiments.plain_training import train_plainly
from gliofed.experiments.predicted_masks import masks_file, needs_masks, pack_mask, write_masks
from gliofed.experiments.predictions import CasePredictor, predict_test_cases
from gliofed.experiments.run_context import RunContext
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup, training_network
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.models.initial_weights import initial_weights
from gliofed.models.network import build_net
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NoProgress, Progress
from gliofed.study import FEDERATED


def train_model(context: RunContext, run: ModelRun, progress: Progress) -> TrainedModelRun:
    """The model after its last round. Committed rounds are not repeated."""
    epochs = run.effective_study(context.study).train.epochs
    if run.model != FEDERATED:
        passes = _PassProgress(progress, 1, epochs)
        return TrainedModelRun(run, train_plainly(context, run, passes, passes.committed))
    return TrainedModelRun(run, _federate(context, run, progress))


def _federate(context: RunContext, run: ModelRun, progress: Progress) -> CommittedRound:
    epochs = run.effective_study(context.study).train.epochs
    passes = _PassProgress(progress, len(run.sites), epochs)
    engine, federated = local_federation(context, run, passes)
    return run_rounds(engine, federated, passes.committed)


def local_federation(
    context: RunContext, run: ModelRun, progress: Progress
) -> tuple[LocalEngine, FederatedRun]:
    """The hospitals of a federated run in this process, and what their server is given.

    The hospitals work in turn and train in one network: memory does not grow with them.
    """
    folder, study = run.folder(context.out), run.effective_study(context.study)
    network = training_network(study, context.machine)
    sites = []
    for name, cases in run.sites.items():
        data = SiteData(name, [context.prepared[str(c)] for c in cases])
        own = folder / "sites" / name
        setup = ClientSetup(study, run.seed, own, context.machine, network=network)
        sites.append(Client(data, setup, progress=progress))
    federated = FederatedRun(
        study,
        run.run_id(context.study, context.prepared),
        run.seed,
        folder / "rounds",
        lambda: initial_weights(study, run.seed),
    )
    return LocalEngine(sites, folder / "rounds"), federated


class _PassProgress(NoProgress):
    """One model's progress in passes over its cases.

    Commits give the passes that are done; between two of them the reports of the sites are counted.
    """

    def __init__(self, progress: Progress, sites: int, epochs: int) -> None:
        self._progress, self._sites, self._epochs = progress, sites, epochs
        self._done, self._rounds_a_pass = 0.0, 1.0
        self._since = 0.0

    def update(self, done: float, total: float, detail: str) -> None:
        """One site's progress in its round."""
        share = (self._since + done / total) / self._sites / self._rounds_a_pass
        self._progress.update(min(self._done + share, self._epochs), self._epochs, detail)
        self._since += done == total

    def committed(self, state: CommittedRound) -> None:
        """The rounds so far are on the disk."""
        if state.schedule is not None:
            self._rounds_a_pass = state.schedule.rounds / self._epochs
        self._done, self._since = state.rounds / self._rounds_a_pass, 0.0


def test_model(context: RunContext, trained: TrainedModelRun) -> tuple[CaseResult, ...]:
    """One result for each test case; read from the disk if the model was tested before.

    Predicted masks that later steps need are written first, the results last.
    """
    run = trained.run
    path = predictions_file(context, run)
    masks_path = masks_file(context, run)
    keeps_masks = needs_masks(run)
    if path.exists() and (masks_path.exists() or not keeps_masks):
        return parse_predictions(path.read_text(), str(path))
    results: list[CaseResult] = []
    masks: dict[str, bytes] = {}
    predictor = trained_predictor(context, trained)
    for result, prediction in predict_test_cases(predictor, run, context.prepared):
        results.append(result)
        if keeps_masks and result.role == "external":
            masks[f"{result.site}/{result.case}"] = pack_mask(prediction)
    if keeps_masks:
        write_masks(masks_path, masks)
    write_text(path, predictions_csv(results))
    return tuple(results)


def trained_predictor(context: RunContext, trained: TrainedModelRun) -> CasePredictor:
    """The network with its trained weights, on the machine's device."""
    run, study = trained.run, context.study
    config = run.effective_study(study).net
    net = build_net(config, seed=0)
    net.load_state_dict(trained.state.weights)
    return CasePredictor(
        net.to(context.machine.device),
        context.machine,
        study.score.mirror,
        run.untrained(study, context.prepared),
    )


def predictions_file(context: RunContext, run: ModelRun) -> Path:
    """The file of a model's results on its test cases; there once the model has been tested."""
    name = run.test_id(context.study, context.prepared)[:12]
    return run.folder(context.out) / f"predictions-{name}.csv"
