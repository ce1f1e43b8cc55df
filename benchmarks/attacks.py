"""What one lying hospital does to a synchronous federation, and what each defence costs and gains.

The TCGA crops of `studies/tcga-roi.toml`: the 69 patients of Henry Ford are the test, the 73 of
the other six hospitals train, as three hospitals (27, 22, 24 patients) or as seven (MD Anderson in
two halves). The attacker is MD Anderson: 22 of 73 patients as one of three, 11 as one of seven.
One cell is one training; finished cells are kept in `--out`, so the same call continues.

    python benchmarks/attacks.py --out DIR --store DIR [--seeds 1 2 3] [--epochs 12] [--only NAME]
    python benchmarks/attacks.py --out DIR --table

Attacks on the gradient that the site would have sent, or on its labels:

    flip      turned round
    flip5     turned round, five times as long: about as long as the bound lets through unrefused
    flip20    turned round, twenty times as long
    scale     as long as the gate lets through: norm 990, of `max_gradient` 1000
    bias      nothing but a pull of the IDH head's last bias towards "mutant", of the honest length
    labels    each label is the last class in place of the first, and the other way round

Defences: `none` (sum of gradients, no bound), `bound` (the default: clip_ratio, refuse_ratio),
`bound1` (clip_ratio = 1: no site's updates count for more than the usual size), and with the
default bound each `aggregation` of sites.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from gliofed.data.formats.registry import read_sites
from gliofed.data.splits import Split
from gliofed.data.store import PreparedCase
from gliofed.evaluation.metrics.discrimination import auc
from gliofed.evaluation.results import CaseResult
from gliofed.experiments.cases import prepare_study_cases
from gliofed.experiments.model_runs import ModelRun
from gliofed.experiments.predictions import site_test
from gliofed.federated.aggregation.blocks import norm
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.local import LocalEngine
from gliofed.federated.messages import load_update, save_update
from gliofed.federated.server.rounds import run_rounds
from gliofed.federated.server.run import FederatedRun
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.presets import PRESETS
from gliofed.runtime.device import keep_memory, this_machine
from gliofed.runtime.files import write_text
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import Study, load_study
from gliofed.types import Labels, Unknown, Update

STUDY: Final = Path(__file__).parents[1] / "studies" / "tcga-roi.toml"
TEST: Final = "henry-ford-hospital"
ATTACKER: Final = "md-anderson-cancer-center"
PARTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "three": {
        "a": ("case-western", "case-western-st-joseph"),
        "attacker": (ATTACKER,),
        "c": ("duke", "emory-university", "ucsf"),
    },
    "seven": {
        "a": ("case-western",),
        "attacker": (f"{ATTACKER}/0",),
        "c": ("case-western-st-joseph",),
        "d": ("duke",),
        "e": ("emory-university",),
        "f": (f"{ATTACKER}/1",),
        "g": ("ucsf",),
    },
}
NO_BOUND: Final = {"clip_ratio": 1e300, "refuse_ratio": 1e300}
DEFENCES: Final[Mapping[str, Mapping[str, object]]] = {
    "none": NO_BOUND,
    "bound": {},
    "bound1": {"clip_ratio": 1.0},
    "trimmed_mean": {"aggregation": "trimmed_mean"},
    "median": {"aggregation": "median"},
    "geometric_median": {"aggregation": "geometric_median"},
}
ATTACKS: Final = ("honest", "flip", "flip5", "flip20", "scale", "bias", "labels")
LENGTHS: Final[Mapping[str, float]] = {"flip": -1.0, "flip5": -5.0, "flip20": -20.0}
WIDTHS: Final = (12, 24, 48, 96)
"""Half the channels of `small`, to fit many trainings into an hour of one core."""
BIAS: Final = "heads.idh.layers.4.bias"
REPLICATES: Final = 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training."""

    parts: str
    attack: str
    defence: str
    seed: int

    def __str__(self) -> str:
        return f"{self.parts}-{self.attack}-{self.defence}-{self.seed}"


class Attacker(Client):
    """A client that changes each gradient before it is sent."""

    attack = "honest"

    def respond(self, request_file: Path, response_file: Path) -> None:
        """As the client does; the gradient is then replaced in the response."""
        super().respond(request_file, response_file)
        try:
            update = load_update(response_file)
        except Exception:  # counts
            return
        if update.cases:
            sent = changed(update, self.attack)
            save_update(response_file, dataclasses.replace(update, tensors=sent))


def changed(update: Update, attack: str) -> Mapping[str, torch.Tensor]:
    """The gradient that is sent in place of the update's."""
    own = {k: t.clone() for k, t in update.tensors.items()}
    if attack == "bias":
        length = norm(own)
        own = {k: torch.zeros_like(t) for k, t in own.items()}
        own[BIAS] = torch.tensor([1.0, -1.0]) * length / 2**0.5
        return own
    factor = 990 / max(norm(own), 1e-9) if attack == "scale" else LENGTHS.get(attack, 1.0)
    return {k: t * factor for k, t in own.items()}


def flipped(case: PreparedCase) -> PreparedCase:
    """The case with each marker's first class for its last, and the other way round."""
    labels = {}
    for marker in MARKERS:
        value = case.case.labels[marker.id]
        if not isinstance(value, Unknown):
            swap = {marker.classes[0]: marker.classes[-1], marker.classes[-1]: marker.classes[0]}
            labels[marker.id] = swap.get(value, value)
    return dataclasses.replace(case, case=dataclasses.replace(case.case, labels=Labels(labels)))


def hospitals(
    parts: str, sites: Mapping[str, Sequence[PreparedCase]]
) -> dict[str, list[PreparedCase]]:
    """Each simulated hospital's cases; "name/0" is every second case of a hospital."""
    found: dict[str, list[PreparedCase]] = {}
    for name, sources in PARTS[parts].items():
        found[name] = []
        for source in sources:
            site, _, half = source.partition("/")
            own = list(sites[site])
            found[name] += own[int(half) :: 2] if half else own
    return found


def train(
    cell: Cell, study: Study, sites: Mapping[str, Sequence[PreparedCase]], folder: Path
) -> tuple[Mapping[str, torch.Tensor], dict[str, object]]:
    """The weights after the last round, and what was bounded or refused."""
    machine = this_machine()
    clients: list[Client] = []
    for name, cases in hospitals(cell.parts, sites).items():
        lies = name == "attacker" and cell.attack != "honest"
        own = [flipped(c) for c in cases] if lies and cell.attack == "labels" else cases
        kind = Attacker if lies and cell.attack != "labels" else Client
        client = kind(
            SiteData(name, own), ClientSetup(study, cell.seed, folder / "sites" / name, machine)
        )
        if isinstance(client, Attacker):
            client.attack = cell.attack
        clients.append(client)
    run = FederatedRun(study, str(cell), cell.seed, folder / "rounds")
    state = run_rounds(LocalEngine(clients, folder), run)
    bounded: dict[str, int] = {}
    merged: dict[str, int] = {}
    for point in state.history:
        for counted, own_counts in ((bounded, point.bounded), (merged, point.merged)):
            for site, times in own_counts.items():
                counted[site] = counted.get(site, 0) + times
    facts = {"rounds": state.rounds, "bounded": bounded, "merged": merged}
    return state.weights, facts


def results_of(
    weights: Mapping[str, torch.Tensor], study: Study, test: Sequence[PreparedCase], seed: int
) -> Sequence[CaseResult]:
    """The results of the test cases."""
    split = Split("external", {}, {}, tuple(c.case for c in test), ())
    run = ModelRun("federated", seed, split, {})
    prepared = {str(c.case): c for c in test}
    return site_test(study, run, prepared, this_machine(), NO_PROGRESS)(weights)


def figures(results: Sequence[CaseResult]) -> dict[str, object]:
    """Dice and mean AUC with 95 % bootstrap intervals over patients, and who is called mutant."""
    rng = np.random.default_rng(1)
    draws = rng.multinomial(len(results), [1 / len(results)] * len(results), REPLICATES)
    weights = np.vstack([np.ones(len(results)), draws]).astype(float)
    dice = np.array([r.dice if r.dice is not None else np.nan for r in results])
    known = np.isfinite(dice)
    mean_dice = (weights[:, known] @ dice[known]) / weights[:, known].sum(1)
    areas = []
    for marker in MARKERS:
        rows = [i for i, r in enumerate(results) if not isinstance(r.labels[marker.id], Unknown)]
        if not rows:
            continue
        truth = [BY_ID[marker.id].classes.index(str(results[i].labels[marker.id])) for i in rows]
        chances = np.array([results[i].probabilities[marker.id] for i in rows])
        areas.append(auc(np.array(truth), chances, weights[:, rows]))
    mean_auc = np.nanmean(np.array(areas), axis=0)
    mutant = np.mean([r.probabilities["idh"][1] > 0.5 for r in results])
    return {
        "n": len(results),
        "dice": _with_interval(mean_dice),
        "auc": _with_interval(mean_auc),
        "called_mutant": float(mutant),
        "probabilities": {r.case: r.probabilities for r in results},
        "dice_by_case": {r.case: r.dice for r in results},
    }


def _with_interval(values: np.ndarray) -> list[float]:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return [round(float(v), 4) for v in (values[0], low, high)]


def cells(seeds: Sequence[int]) -> Iterator[Cell]:
    """In the order in which they are trained."""
    for seed in seeds:
        for parts in PARTS:
            for attack in ATTACKS:
                for defence in DEFENCES:
                    if parts == "seven" or defence != "trimmed_mean":  # of three, it is the median
                        yield Cell(parts, attack, defence, seed)


def table(out: Path, figure: str) -> Iterator[str]:
    """Lines of a Markdown table of one figure of the finished cells: a row each parts and attack.

    An entry is the mean over seeds and, in brackets, the lowest, the highest and the number of
    seeds; a single seed has the number only. "-" without a cell; a defence without one is left out.
    """
    shown = [d for d in DEFENCES if any(out.glob(f"*-{d}-*.json"))]
    yield f"| attacker | attack | {' | '.join(shown)} |"
    yield f"|---|---|{'---|' * len(shown)}"
    for parts in PARTS:
        for attack in ATTACKS:
            found = [_seeds_of(out, f"{parts}-{attack}-{d}", figure) for d in shown]
            if any(found):
                yield f"| one of {parts} | {attack} | {' | '.join(map(_entry, found))} |"


def _seeds_of(out: Path, name: str, figure: str) -> list[float]:
    facts = [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}-*.json"))]
    values = (own[figure] for own in facts)
    return [v[0] if isinstance(v, list) else v for v in values]


def _entry(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f"{min(values):.2f} to {max(values):.2f}, " if len(values) > 1 else ""
    return f"{np.mean(values):.2f} ({spread}{len(values)})"


def main() -> None:
    """Train the cells that are missing, and print a line for each; or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--table", action="store_true", help="of the finished cells; train none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of cells' names, in order")
    args = parser.parse_args()
    if args.table:
        for figure in ("dice", "auc", "called_mutant"):
            print(figure, *table(args.out, figure), sep="\n", end="\n\n")
        return
    if args.store is None:
        parser.error("--store: the folder of prepared cases")
    keep_memory()
    torch.set_num_threads(1)
    PRESETS["small"] = dataclasses.replace(PRESETS["small"], widths=WIDTHS)  # type: ignore[index]
    study = load_study(STUDY)
    study = dataclasses.replace(
        study, train=dataclasses.replace(study.train, epochs=args.epochs), models=("federated",)
    )
    found = prepare_study_cases(study, read_sites(study.data), args.store, NO_PROGRESS)
    sites = {s: [found.prepared[str(c)] for c in cases] for s, cases in found.sites.items()}
    for cell in [c for part in args.only for c in cells(args.seeds) if part in str(c)]:
        path = args.out / f"{cell}.json"
        if not path.exists():
            started, folder = time.process_time(), args.out / f"{cell}.part"
            federation = dataclasses.replace(study.federation, **DEFENCES[cell.defence])
            own = dataclasses.replace(study, federation=federation)
            weights, facts = train(cell, own, sites, folder)
            facts |= figures(results_of(weights, own, sites[TEST], cell.seed))
            facts |= {"cpu_seconds": round(time.process_time() - started), "epochs": args.epochs}
            write_text(path, json.dumps(facts))
            shutil.rmtree(folder)
        facts = json.loads(path.read_text())
        shown = {k: v for k, v in facts.items() if k not in ("probabilities", "dice_by_case")}
        print(cell, json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
