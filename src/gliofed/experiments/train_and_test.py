"""One model of a study, trained and tested; all it finds out is on the disk when it returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gliofed.data.store import PreparedCase
from gliofed.evaluation.files import predictions_csv
from gliofed.evaluation.prediction_table import parse_predictions
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import predict_and_score
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import Client
from gliofed.federated.local import LocalEngine
from gliofed.federated.server.rounds import run_rounds
from gliofed.models.network import MultiTaskNet, build_net
from gliofed.runtime.device import Device
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NoProgress, Progress
from gliofed.study import Study
from gliofed.types import RoundPoint


def train_model(
    study: Study,
    cell: ModelRun,
    prepared: Mapping[str, PreparedCase],
    out: Path,
    machine: Device,
    progress: Progress,
) -> CommittedRound:
    """The model after its last round; rounds already committed below `out` are not made again.

    prepared: "site/id" to the prepared case, at least of the cell's training cases.
    """
    folder, rules = cell.folder(out), cell.rules(study)
    of_rounds = _ProgressOfRounds(progress, len(cell.sites), rules.train.rounds)
    sites = [
        Client(
            name=name,
            cases=[prepared[str(c)] for c in cases],
            study=rules,
            seed=cell.seed,
            folder=folder / "sites" / name,
            machine=machine,
            progress=of_rounds,
        )
        for name, cases in cell.sites.items()
    ]
    return run_rounds(
        LocalEngine(sites, folder / "rounds"),
        rules,
        cell.seed,
        cell.run_id(study, prepared),
        folder / "rounds",
        of_rounds.committed,
    )


class _ProgressOfRounds(NoProgress):
    """One model's progress in rounds, from what its sites report one after the other."""

    def __init__(self, progress: Progress, sites: int, rounds: int) -> None:
        self._progress, self._sites, self._rounds = progress, sites, rounds
        self._rounds_done, self._sites_done = 0, 0

    def update(self, done: float, total: float, detail: str) -> None:
        """A site's share of the round."""
        share = min((self._sites_done + done / total) / self._sites, 1)
        number = self._rounds_done + 1
        self._progress.update(self._rounds_done + share, self._rounds, f"round {number}, {detail}")
        self._sites_done += done == total

    def committed(self, point: RoundPoint) -> None:
        """The next round begins."""
        self._rounds_done, self._sites_done = point.round + 1, 0


def test_model(
    study: Study,
    cell: ModelRun,
    state: CommittedRound,
    prepared: Mapping[str, PreparedCase],
    out: Path,
    machine: Device,
) -> tuple[CaseResult, ...]:
    """Its answers for every case that it is tested on, from the disk where they are there."""
    path = predictions_file(study, cell, prepared, out)
    if path.exists():
        return parse_predictions(path.read_text(), str(path))
    net = trained_network(study, cell, state, machine)
    results = predict_and_score(net, cell, prepared, machine, study.score.mirror)
    write_text(path, predictions_csv(results))
    return results


def trained_network(
    study: Study, cell: ModelRun, state: CommittedRound, machine: Device
) -> MultiTaskNet:
    """The cell's network with the weights of `state`, on the machine's device."""
    own = cell.rules(study).net
    net = build_net(own.preset, own.stem, seed=0)
    net.load_state_dict(state.model)
    return net.to(machine.device)


def predictions_file(
    study: Study, cell: ModelRun, prepared: Mapping[str, PreparedCase], out: Path
) -> Path:
    """Where a model's answers are once it is trained and tested."""
    return cell.folder(out) / f"predictions-{cell.test_id(study, prepared)[:12]}.csv"
