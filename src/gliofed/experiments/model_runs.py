"""The networks that a study trains: one model run for each seed, fold and kind of model."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gliofed.data.splits import Split
from gliofed.data.store import PreparedCase
from gliofed.evaluation.results import Role
from gliofed.experiments.case_scores import ResultOrigin
from gliofed.federated.checkpoint import CommittedRound
from gliofed.federated.client import count_cases
from gliofed.federated.label_counts import LabelCounts, untrained_markers
from gliofed.study import ALONE, FEDERATED, PARENT, PERSONAL, POOLED, NetworkConfig, Study
from gliofed.types import Case
from gliofed.version import __version__


@dataclass(frozen=True)
class ModelRun:
    """One network to train and test.

    sites: site to its training cases. Only the federated model is trained by a federation of them;
    every other one has all their cases in one place. base: the run whose final model it begins
    with; None for one that begins as the study says.
    """

    model: str
    seed: int
    split: Split
    sites: Mapping[str, tuple[Case, ...]]
    base: ModelRun | None = None

    def folder(self, root: Path) -> Path:
        """The folder of its checkpoints and predictions. root: the run's folder."""
        return model_folder(root, self.model, self.seed, self.split)

    @property
    def test_cases(self) -> tuple[tuple[Role, Case], ...]:
        """The cases that it is tested on: external ones, then those held out at training sites."""
        return test_cases_of(self.split)

    def origin(self, role: Role) -> ResultOrigin:
        """Of its results in one test."""
        return ResultOrigin(self.model, self.seed, self.split.fold, role)

    def effective_study(self, study: Study) -> Study:
        """The settings that this model is trained with.

        The model "parent" has its own network, which begins with random weights. A personal one has
        the passes and the learning rate of `[personal]`.
        """
        if self.base is not None:
            own = study.personal
            train = replace(study.train, epochs=own.epochs, lr=own.lr)
            return replace(study, init=None, train=train)
        if self.model != PARENT:
            return study
        return replace(study, net=NetworkConfig(PARENT), init=None)

    def run_id(self, study: Study, prepared: Mapping[str, PreparedCase]) -> str:
        """A name for messages and checkpoints of this model with these scans and labels."""
        cases = [
            f"{site}>{content_of(prepared[str(c)])}"
            for site, site_cases in self.sites.items()
            for c in site_cases
        ]
        base = [] if self.base is None else [self.base.run_id(study, prepared)]
        return digest(
            study.digest,
            __version__,
            self.model,
            self.split.fold,
            str(self.seed),
            *sorted(cases),
            *base,
        )

    def counts(self, prepared: Mapping[str, PreparedCase]) -> LabelCounts:
        """Of all its training cases together."""
        return count_cases([prepared[str(c)] for cases in self.sites.values() for c in cases])

    def untrained(self, study: Study, prepared: Mapping[str, PreparedCase]) -> tuple[str, ...]:
        """The markers that it does not train (`label_counts.untrained_markers`).

        A personal model keeps the heads of its base for markers that the site alone cannot train.
        """
        if self.base is not None:
            return self.base.untrained(study, prepared)
        return untrained_markers(study.loss, self.counts(prepared).classes)

    def test_id(self, study: Study, prepared: Mapping[str, PreparedCase]) -> str:
        """A name for predictions of the trained model on its test cases as they are now."""
        cases = [f"{role}>{content_of(prepared[str(c)])}" for role, c in self.test_cases]
        return digest(self.run_id(study, prepared), *cases)

    def __str__(self) -> str:
        return f"{self.model}, {self.split.fold}, seed {self.seed}"


@dataclass(frozen=True)
class TrainedModelRun:
    """A model run and its weights after the last round."""

    run: ModelRun
    state: CommittedRound


def content_of(prepared: PreparedCase) -> str:
    """Name of the inputs of training and scoring of a case: identity, voxels, labels."""
    case = prepared.case
    return f"{case}/{case.patient}/{prepared.key}/{sorted(case.labels.values.items())}"


def model_folder(root: Path, model: str, seed: int, split: Split) -> Path:
    """The folder of one model's files. root: the run's folder."""
    return root / "models" / f"seed-{seed}" / split.fold / model.replace(":", "-")


def test_cases_of(split: Split) -> tuple[tuple[Role, Case], ...]:
    """The cases that every model of a split is tested on, external ones first."""
    holdout = [c for cases in split.holdout.values() for c in cases]
    return (*(("external", c) for c in split.external), *(("holdout", c) for c in holdout))


def digest(*parts: str) -> str:
    """24 hex digits of the SHA-256 of all parts in their order."""
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def plan_model_runs(study: Study, splits: Mapping[int, Sequence[Split]]) -> tuple[ModelRun, ...]:
    """Every network of a study, in the order in which they are trained.

    splits: seed to its folds. A site without a training case trains no model of its own.
    """
    runs = []
    for seed in study.seeds:
        for split in splits[seed]:
            sites = {s: c for s, c in split.train.items() if c}
            federated = ModelRun(FEDERATED, seed, split, sites)
            if FEDERATED in study.models:
                runs.append(federated)
            if POOLED in study.models:
                runs.append(ModelRun(POOLED, seed, split, sites))
            if ALONE in study.models:
                runs += [ModelRun(f"{ALONE}:{s}", seed, split, {s: c}) for s, c in sites.items()]
            if PERSONAL in study.models:
                runs += [
                    ModelRun(f"{PERSONAL}:{s}", seed, split, {s: c}, federated)
                    for s, c in sites.items()
                ]
            if PARENT in study.models:
                runs.append(ModelRun(PARENT, seed, split, sites))
    return tuple(runs)
