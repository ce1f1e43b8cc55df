"""Run a study from hospitals on disk to a results page; killed at any moment, it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.datasets.formats import read_sites
from gliofed.datasets.split import make_splits
from gliofed.errors import CheckpointError
from gliofed.experiment.cells import FEDERATED, Cell, plan_cells
from gliofed.experiment.evaluate import evaluate
from gliofed.experiment.overlap import Overlap, find_overlap, linked, refuse
from gliofed.experiment.page import make_content
from gliofed.experiment.watch import Watcher
from gliofed.fed.checkpoint import Committed
from gliofed.fed.engines.local import LocalEngine
from gliofed.fed.rounds import run_rounds
from gliofed.fed.site import Site
from gliofed.io.files import alone_in, write_text
from gliofed.io.store import Prepared, PreparedStore
from gliofed.learn.machine import Machine, keep_memory, this_machine
from gliofed.nets.unet import MultiTaskNet, build_net
from gliofed.prepare.recipe import prepare_all
from gliofed.report.page import write_page
from gliofed.score.files import parse_predictions, predictions_csv, scores_csv, scores_json
from gliofed.score.results import CaseResult, ScoreRow
from gliofed.score.table import score_table
from gliofed.study import Study, load_study, study_toml
from gliofed.types import Case


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the page, the tables beside it, and the rows for the terminal."""

    page: Path
    rows: tuple[ScoreRow, ...]
    results: tuple[CaseResult, ...]


def run_study(study: Study, out: Path, store: Path, watcher: Watcher) -> Outcome:
    """Train and test every model of `study`, write tables and page below `out`.

    What is already there of the same study is not done again. Raises CheckpointError where `out`
    holds another study or another process works there, and every error of the rooms below.
    """
    keep_memory()
    with alone_in(out):
        return _run(study, out, store, watcher, this_machine())


def _run(study: Study, out: Path, store: Path, watcher: Watcher, machine: Machine) -> Outcome:
    cases: Mapping[str, Sequence[Case]] = read_sites(study.data)
    refuse(study, find_overlap(study, cases, None, None))
    _claim(study, out)
    cases, prepared, overlap = _compared(study, cases, store, watcher)
    splits = {s: make_splits(study.data, cases, s) for s in study.seeds}
    cells = plan_cells(study, splits)
    trained: list[tuple[Cell, Committed]] = []
    results: list[CaseResult] = []
    for number, cell in enumerate(cells, start=1):
        watcher.stage(f"model {number} of {len(cells)}: {cell}")
        state = _train(study, cell, prepared, out, machine, watcher)
        trained.append((cell, state))
        results += _test(study, cell, state, prepared, out, machine)
    watcher.stage("scores and intervals")
    rows = score_table(results, study.score.bootstrap)
    write_text(out / "predictions.csv", predictions_csv(results))
    write_text(out / "scores.csv", scores_csv(rows))
    write_text(out / "scores.json", scores_json(rows))
    watcher.stage("page")
    content = make_content(study, splits, trained, results, rows, prepared, machine, overlap)
    write_page(content, out / "report.html")
    return Outcome(out / "report.html", tuple(rows), tuple(results))


def model_of(study: Study, state: Committed, machine: Machine) -> MultiTaskNet:
    """The network with a committed state's weights, on the machine's device."""
    net = build_net(study.net.preset, study.net.stem, seed=0)
    net.load_state_dict(dict(state.weights))
    return net.to(machine.device)


def _claim(study: Study, out: Path) -> None:
    """Write the study into the folder, or see that it is the one already there."""
    path = out / "study.toml"
    if path.exists() and load_study(path).digest != study.digest:
        raise CheckpointError(
            f"{out} holds a run of another study ({path}); choose another --out, or delete it"
        )
    write_text(path, study_toml(study))


def compare_sites(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, watcher: Watcher
) -> tuple[Overlap, tuple[Prepared, ...]]:
    """Prepare every case, then look for patients at two hospitals in every way the study asks."""
    every = [c for site in cases.values() for c in site]
    watcher.stage(f"preparing {len(every)} cases of {len(cases)} hospitals")
    shelf = PreparedStore(store)
    prepared = prepare_all(
        every, study.grid, shelf, lambda done, total: watcher.progress(done, total, "cases")
    )
    shelf.save_digests()
    watcher.stage("comparing patients between hospitals")
    return find_overlap(study, cases, {str(p.case): p for p in prepared}, shelf), prepared


def _compared(
    study: Study, cases: Mapping[str, Sequence[Case]], store: Path, watcher: Watcher
) -> tuple[Mapping[str, Sequence[Case]], Mapping[str, Prepared], Overlap]:
    """The cases and their prepared scans, one `patient` for all that are one person."""
    overlap, prepared = compare_sites(study, cases, store, watcher)
    refuse(study, overlap)
    cases = linked(cases, overlap)
    one = {str(c): c for own in cases.values() for c in own}
    return cases, {str(p.case): replace(p, case=one[str(p.case)]) for p in prepared}, overlap


def _train(
    study: Study,
    cell: Cell,
    prepared: Mapping[str, Prepared],
    out: Path,
    machine: Machine,
    watcher: Watcher,
) -> Committed:
    folder = cell.folder(out)
    done = {"rounds": 0, "site": 0}

    def at_site(name: str, step: int, steps: int) -> None:
        share = (done["site"] + step / steps) / (len(cell.sites) * study.train.local_epochs)
        whole = done["rounds"] + min(share, 1)
        watcher.progress(whole, study.train.rounds, f"round {done['rounds'] + 1}, {name}")
        done["site"] += step == steps

    def at_round(rounds: int) -> None:
        done.update(rounds=rounds, site=0)

    sites = [
        Site(
            name=name,
            cases=[prepared[str(c)] for c in cases],
            study=study,
            seed=cell.seed,
            folder=folder / "sites" / name,
            machine=machine,
            progress=at_site,
        )
        for name, cases in cell.sites.items()
    ]
    initial = build_net(study.net.preset, study.net.stem, seed=cell.seed).state_dict()
    return run_rounds(
        LocalEngine(sites),
        {k: v.clone() for k, v in initial.items()},
        _rules(study, cell),
        cell.run_id(study, prepared),
        folder / "rounds",
        lambda point: at_round(point.round + 1),
    )


def _rules(study: Study, cell: Cell) -> Study:
    """The study as a cell's rounds follow it: a federation of one is plain training."""
    if cell.model == FEDERATED:
        return study
    return replace(study, federation=replace(study.federation, quorum=1, server_lr=1.0))


def _test(
    study: Study,
    cell: Cell,
    state: Committed,
    prepared: Mapping[str, Prepared],
    out: Path,
    machine: Machine,
) -> tuple[CaseResult, ...]:
    path = cell.folder(out) / f"predictions-{cell.test_id(study, prepared)[:12]}.csv"
    if path.exists():
        return parse_predictions(path.read_text(), str(path))
    net = model_of(study, state, machine)
    results = evaluate(net, cell, prepared, machine, study.score.mirror)
    write_text(path, predictions_csv(results))
    return results
