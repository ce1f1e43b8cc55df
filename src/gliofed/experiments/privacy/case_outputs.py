"""Losses and confidences of each model of a run for each case, for membership inference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from gliofed.data.store import PreparedCase
from gliofed.evaluation.privacy.membership import MembershipGame
from gliofed.experiments.privacy.audited_run import AuditedModel, AuditedRun
from gliofed.inference.forward import predict
from gliofed.markers import MARKERS
from gliofed.models.network import MASK_TASK
from gliofed.runtime.device import Device
from gliofed.runtime.progress import Progress
from gliofed.training.loss import mask_losses
from gliofed.types import Case, Prediction, Unknown

TASKS = (MASK_TASK, *(m.id for m in MARKERS))
LEAST = 1e-9
"""Probabilities are cut here, so that no confidence is infinite."""


def play(run: AuditedRun, machine: Device, progress: Progress) -> MembershipGame:
    """Every model's outputs for every case, none of them mirrored, augmented or calibrated."""
    cases = list(run.prepared.values())
    names = [str(c.case) for c in cases]
    losses = []
    for done, model in enumerate(run.models):
        progress.update(done, len(run.models), f"{model.split.fold}, seed {model.seed}")
        losses.append(_losses(model, cases, machine))
    found = np.stack(losses)
    trained = np.array([_flags(names, m.split.train.values()) for m in run.models])
    held_out = np.array([_flags(names, m.split.holdout.values()) for m in run.models])
    return MembershipGame(
        tasks=TASKS,
        losses=found,
        confidences=_confidences(found),
        trained=trained,
        played=trained | held_out,
        seeds=tuple(m.seed for m in run.models),
        patients=tuple(c.case.patient for c in cases),
    )


def _losses(
    model: AuditedModel, cases: Sequence[PreparedCase], machine: Device
) -> NDArray[np.float64]:
    read = model.read()
    net = read.network().to(machine.device)
    untrained = read.recipe.untrained
    return np.array(
        [task_losses(predict(net, case, machine, False), case, untrained) for case in cases]
    )


def task_losses(
    prediction: Prediction, prepared: PreparedCase, untrained: Sequence[str]
) -> list[float]:
    """The loss of each of `TASKS` as in training, without weights; NaN without a label."""
    out = [math.nan]
    if prepared.lesion is not None and prepared.mask is not None:
        logits = torch.logit(torch.from_numpy(prediction.probability), eps=1e-6)[None, None]
        out = [float(mask_losses(logits, torch.from_numpy(prepared.mask > 0)[None, None].float()))]
    for marker in MARKERS:
        label = prepared.case.labels[marker.id]
        if isinstance(label, Unknown) or marker.id in untrained:
            out.append(math.nan)
            continue
        right = prediction.markers[marker.id][marker.classes.index(label)]
        out.append(-math.log(max(right, LEAST)))
    return out


def _confidences(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logit of the true class's probability (Carlini et al. 2022); of the mask, minus the
    logarithm of its loss."""
    right = np.clip(np.exp(-losses), LEAST, 1 - LEAST)
    out: NDArray[np.float64] = np.log(right) - np.log1p(-right)
    out[..., 0] = -np.log(np.maximum(losses[..., 0], LEAST))
    return out


def _flags(names: Sequence[str], cases: Iterable[Iterable[Case]]) -> list[bool]:
    chosen = {str(c) for own in cases for c in own}
    return [name in chosen for name in names]
