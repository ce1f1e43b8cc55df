"""The rounds of one site in a study with `[privacy]`: one noisy gradient a round, each once."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from torch import Tensor

from gliofed.data.store import PreparedCase
from gliofed.errors import UpdateError
from gliofed.federated.messages import TrainingRequest, load_update, save_update
from gliofed.federated.noise.accounting import Mechanism, mechanism_of
from gliofed.federated.noise.clipping import clipped_sum
from gliofed.federated.noise.ledger import Ledger, RunCost
from gliofed.federated.noise.random_numbers import Entropy, drawn, gaussian
from gliofed.federated.noise.shares import noise_of_site
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK, MultiTaskNet, task_of
from gliofed.privacy_config import PrivacyConfig
from gliofed.runtime.device import Device
from gliofed.runtime.files import write_text
from gliofed.study import Study
from gliofed.training.loop import TrainingPlan, add_gradient, batch_of
from gliofed.types import Update

_SENT: Final = "last-private-update.safetensors"
"""The last update, to be sent again where its round is repeated."""
_MODEL: Final = "last-private-update.model"
"""Digest of the model that it was computed from; written after it."""
Record = Sequence[PreparedCase]
"""All cases of one patient."""


def records(cases: Sequence[PreparedCase]) -> tuple[Record, ...]:
    """The cases by patient."""
    by_patient: dict[str, list[PreparedCase]] = {}
    for prepared in cases:
        by_patient.setdefault(prepared.case.patient, []).append(prepared)
    return tuple(map(tuple, by_patient.values()))


@dataclass(frozen=True)
class NoisyGradients:
    """How a site computes what leaves.

    seed: of patches, augmentation and dropout; neither the draws of patients nor the noise follow
    from it. entropy: from which these come.
    """

    site: str
    cases: Sequence[PreparedCase]
    study: Study
    seed: int
    machine: Device
    entropy: Entropy = os.urandom

    @cached_property
    def mechanism(self) -> Mechanism:
        """All rounds of one run."""
        return mechanism_of(self.study)

    def compute(
        self, net: MultiTaskNet, parameters: Mapping[str, Tensor], number: int
    ) -> dict[str, Tensor]:
        """The clipped gradients of the patients drawn for round `number`, with the site's noise.

        parameters: those of `net` that are trained. The sum is divided by the patients that a round
        draws on average, `train.batch`, and not by those that it has drawn. float32 on the CPU; 0
        for parameters of tasks that the study leaves out, in which no patient has a part.
        """
        patients, privacy = records(self.cases), privacy_of(self.study)
        chosen = drawn(len(patients), self.mechanism.rate, self.entropy)

        def add(record: Record) -> None:
            drawn_cases = [(self.site, case) for case in record]
            add_gradient(net, self._plan, batch_of(self._plan, drawn_cases, number))

        total = clipped_sum(parameters, (patients[i] for i in chosen), add, privacy.clip)
        batch = self.study.train.batch
        deviation = noise_of_site(self.study) * batch
        weights = self._plan.task_weights
        sent = {}
        for name, summed in total.items():
            noisy = summed.to("cpu")
            if weights.get(task_of(name), 1.0) > 0:
                noisy = noisy + gaussian(noisy, deviation, self.entropy)
            sent[name] = (noisy / batch).float()
        return sent

    @cached_property
    def _plan(self) -> TrainingPlan:
        """Its weights of tasks and classes are the study's, and depend on no patient."""
        loss = self.study.loss
        return TrainingPlan(
            study=self.study,
            sites={self.site: self.cases},
            task_weights={MASK_TASK: loss.mask, **loss.markers},
            class_weights={m.id: (1.0,) * len(m.classes) for m in MARKERS},
            seed=self.seed,
            batches=1,
            steps=self.mechanism.rounds,
            machine=self.machine,
        )


def privacy_of(study: Study) -> PrivacyConfig:
    """`[privacy]` of a study that has it."""
    assert study.privacy is not None, "callers ask for it"
    return study.privacy


class PrivateRounds:
    """What leaves a site in each round, written into its ledger first.

    folder: of what the site keeps of the run.
    """

    def __init__(self, gradients: NoisyGradients, ledger: Ledger, folder: Path) -> None:
        self._gradients, self._ledger, self._folder = gradients, ledger, folder

    def respond(self, request: TrainingRequest, make: Callable[[], Update]) -> Update:
        """The update for a request, kept on the disk and written into the ledger.

        make: computes one. A request for the last round from the same model gets the update that
        was kept. Raises PolicyError as `Ledger.spend`, UpdateError for a round beyond the run.
        """
        rounds = self._gradients.mechanism.rounds
        if request.round >= rounds:
            raise UpdateError(f"the request is for round {request.round} of {rounds}")
        model = _digest(request.weights)
        kept = self._kept(request, model)
        if kept is None:
            self._ledger.check(request.run, self._cost, request.round)
            kept = make()
            self._keep(kept, model)
        self._ledger.spend(request.run, self._cost, request.round, model)
        return dataclasses.replace(kept, nonce=request.nonce)

    @property
    def _cost(self) -> RunCost:
        study, mechanism = self._gradients.study, self._gradients.mechanism
        return RunCost(study.name, mechanism.rate, mechanism.noise, mechanism.rounds)

    def _keep(self, update: Update, model: str) -> None:
        path = self._folder / _SENT
        save_update(path.with_name(f".{_SENT}.new"), update)
        path.with_name(f".{_SENT}.new").replace(path)
        write_text(self._folder / _MODEL, model)

    def _kept(self, request: TrainingRequest, model: str) -> Update | None:
        """The update that was made for this round of the run from this model."""
        path, name = self._folder / _SENT, self._folder / _MODEL
        if not (path.is_file() and name.is_file()) or name.read_text() != model:
            return None
        kept = load_update(path)
        same = (kept.run, kept.round) == (request.run, request.round)
        return kept if same else None


def _digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and values."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].detach().contiguous().numpy().tobytes())
    return found.hexdigest()
