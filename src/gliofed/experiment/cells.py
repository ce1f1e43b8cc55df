"""The models that a study trains: one cell for each seed, fold and kind of model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliofed import __version__
from gliofed.datasets.split import Split
from gliofed.study import Study
from gliofed.types import Case

FEDERATED, POOLED, ALONE = "federated", "pooled", "alone"


@dataclass(frozen=True)
class Cell:
    """One model to train and test.

    sites: site to its training cases; the pooled and single-site models are federations of one.
    tests: sites whose held-out cases it is tested on, beside the external ones.
    """

    model: str
    seed: int
    split: Split
    sites: Mapping[str, tuple[Case, ...]]

    def folder(self, root: Path) -> Path:
        """Where its checkpoints and predictions live below the run's folder."""
        name = self.model.replace(":", "-")
        return root / "models" / f"seed-{self.seed}" / self.split.fold / name

    def run_id(self, study: Study) -> str:
        """The name that binds every message and checkpoint to this cell of this study."""
        cases = sorted(str(c) for site in self.sites.values() for c in site)
        text = "|".join([study.digest, __version__, self.model, self.split.fold,
                         str(self.seed), *cases])  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return f"{self.model}, {self.split.fold}, seed {self.seed}"


def plan_cells(study: Study, splits: Mapping[int, Sequence[Split]]) -> tuple[Cell, ...]:
    """Every cell of a study, in the order in which they are trained.

    splits: seed to its folds. A site left without a training case trains no model of its own.
    """
    cells = []
    for seed in study.seeds:
        for split in splits[seed]:
            sites = {s: c for s, c in split.train.items() if c}
            everyone = tuple(c for cases in sites.values() for c in cases)
            if FEDERATED in study.models:
                cells.append(Cell(FEDERATED, seed, split, sites))
            if POOLED in study.models:
                cells.append(Cell(POOLED, seed, split, {POOLED: everyone}))
            if ALONE in study.models:
                cells += [Cell(f"{ALONE}:{s}", seed, split, {s: c}) for s, c in sites.items()]
    return tuple(cells)
