"""The networks that a study trains: one cell for each seed, fold and kind of model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.data.splits import Split
from gliofed.data.store import PreparedCase
from gliofed.evaluation.results import Role
from gliofed.study import NetworkConfig, Study
from gliofed.types import Case
from gliofed.version import __version__

FEDERATED, POOLED, ALONE, PARENT = "federated", "pooled", "alone", "parent"


@dataclass(frozen=True)
class ModelRun:
    """One network to train and test.

    sites: site to its training cases; all but the federated model are federations of one.
    """

    model: str
    seed: int
    split: Split
    sites: Mapping[str, tuple[Case, ...]]

    def folder(self, root: Path) -> Path:
        """Where its checkpoints and predictions live below the run's folder."""
        return model_folder(root, self.model, self.seed, self.split)

    @property
    def tests(self) -> tuple[tuple[Role, Case], ...]:
        """The cases that it is tested on: the external ones, then those held out at its sites."""
        return test_cases_of(self.split)

    def rules(self, study: Study) -> Study:
        """The study as it follows it: a federation of one is plain training, and the parent's
        network takes the place of the study's own."""
        if self.model == FEDERATED:
            return study
        net = NetworkConfig(PARENT) if self.model == PARENT else study.net
        plain = replace(study.federation, quorum=1, server_lr=1.0, moments="own")
        return replace(study, net=net, federation=plain)

    def run_id(self, study: Study, prepared: Mapping[str, PreparedCase]) -> str:
        """The name that binds messages and checkpoints to this cell, its scans and its labels."""
        cases = [f"{s}>{_content(prepared[str(c)])}" for s, own in self.sites.items() for c in own]
        return digest(study.digest, __version__, self.model, self.split.fold, str(self.seed),
                      *sorted(cases))  # fmt: skip

    def test_id(self, study: Study, prepared: Mapping[str, PreparedCase]) -> str:
        """The name that binds predictions to the trained cell and to what it is tested on."""
        cases = [f"{role}>{_content(prepared[str(c)])}" for role, c in self.tests]
        return digest(self.run_id(study, prepared), *cases)

    def __str__(self) -> str:
        return f"{self.model}, {self.split.fold}, seed {self.seed}"


def _content(prepared: PreparedCase) -> str:
    """All that training and scoring read of a case: who it is, its voxels, its labels."""
    case = prepared.case
    return f"{case}/{case.patient}/{prepared.key}/{sorted(case.labels.values.items())}"


def model_folder(root: Path, model: str, seed: int, split: Split) -> Path:
    """Where a model's files live below the run's folder."""
    return root / "models" / f"seed-{seed}" / split.fold / model.replace(":", "-")


def test_cases_of(split: Split) -> tuple[tuple[Role, Case], ...]:
    """The cases that every model of a split is tested on, in one order."""
    held = [c for cases in split.holdout.values() for c in cases]
    return (*(("external", c) for c in split.external), *(("holdout", c) for c in held))


def digest(*parts: str) -> str:
    """A short name of all parts in their order."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def plan_model_runs(study: Study, splits: Mapping[int, Sequence[Split]]) -> tuple[ModelRun, ...]:
    """Every network of a study, in the order in which they are trained.

    splits: seed to its folds. A site left without a training case trains no model of its own.
    """
    cells = []
    for seed in study.seeds:
        for split in splits[seed]:
            sites = {s: c for s, c in split.train.items() if c}
            everyone = tuple(c for cases in sites.values() for c in cases)
            if FEDERATED in study.models:
                cells.append(ModelRun(FEDERATED, seed, split, sites))
            if POOLED in study.models:
                cells.append(ModelRun(POOLED, seed, split, {POOLED: everyone}))
            if ALONE in study.models:
                cells += [ModelRun(f"{ALONE}:{s}", seed, split, {s: c}) for s, c in sites.items()]
            if PARENT in study.models:
                cells.append(ModelRun(PARENT, seed, split, {POOLED: everyone}))
    return tuple(cells)
