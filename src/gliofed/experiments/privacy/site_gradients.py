"""The gradients that sites send for samples of their cases, and their form for an attack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gliofed.data.store import PreparedCase
from gliofed.federated.client import count_cases
from gliofed.federated.label_counts import Pass, class_weights, row_weights
from gliofed.federated.schedule import batches_of_pass
from gliofed.models.blocks import Conv3d, ConvTranspose3d
from gliofed.models.network import MultiTaskNet
from gliofed.runtime.device import Device
from gliofed.study import Study
from gliofed.training.loop import TrainingPlan, add_gradient
from gliofed.training.loss import LossScale, total_loss
from gliofed.training.order import generator
from gliofed.training.samples import collate, draw_sample
from gliofed.types import Batch

FLOAT32 = Device(torch.device("cpu"), bf16=False)


class SiteGradients:
    """Gradients of one network, in float32 on the CPU, with the loss weights of a federation.

    sites: site to its training cases. crop: largest side of samples; None: the study's patch. The
    network's layers are made differentiable twice.
    """

    def __init__(
        self,
        net: MultiTaskNet,
        study: Study,
        sites: Mapping[str, Sequence[PreparedCase]],
        crop: int | None = None,
    ) -> None:
        counts = count_cases([case for cases in sites.values() for case in cases])
        batches = batches_of_pass(counts.cases, study.train.batch)
        self._net = _twice_differentiable(net)
        x, y, z = study.grid.patch
        self._patch = (x, y, z) if crop is None else (min(x, crop), min(y, crop), min(z, crop))
        self._plan = TrainingPlan(
            study=study,
            sites=sites,
            task_weights=row_weights(study.loss, Pass(counts.labelled, batches, counts.classes)),
            class_weights=class_weights(counts),
            seed=0,
            batches=batches,
            steps=batches,
            machine=FLOAT32,
        )

    @property
    def plan(self) -> TrainingPlan:
        """Loss weights and settings."""
        return self._plan

    def sample(self, cases: Sequence[PreparedCase], number: int) -> Batch:
        """A batch of one augmented sample a case, drawn as for pass `number`."""
        study = self._plan.study
        samples = [
            draw_sample(
                c,
                self._patch,
                study.train,
                generator(0, f"privacy audit/{c.case.site}/{c.case.id}", number),
            )
            for c in cases
        ]
        return collate(samples, cases)

    def sent(self, batch: Batch) -> dict[str, Tensor]:
        """The gradient that a site sends for a batch, by parameter; 0 where nothing is labelled."""
        self._net.zero_grad(set_to_none=True)
        add_gradient(self._net, self._plan, batch)
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
            for name, p in self._net.named_parameters()
        }

    def differentiable(self, batch: Batch, image: Tensor) -> list[Tensor]:
        """The gradient for other images with the masks and labels of `batch`, of which it can be
        differentiated. Sequences that are not present have no effect.

        One case is given twice and counts half: torch computes convolutions of one case without
        oneDNN, which takes half as long again.
        """
        guess = dataclasses.replace(batch, image=image * batch.present[..., None, None, None])
        rows = len(guess.image)
        guess = _twice(guess) if rows == 1 else guess
        self._net.train()
        output = self._net(guess.image, guess.present, guess.dropout)
        classes = {m: torch.tensor(w) for m, w in self._plan.class_weights.items()}
        smoothing = self._plan.study.loss.label_smoothing
        loss, _ = total_loss(output, guess, LossScale(self._plan.task_weights, classes, smoothing))
        parameters = list(self._net.parameters())
        if loss is None:
            return [torch.zeros_like(p) for p in parameters]
        loss = loss * (rows / len(guess.image))
        found = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
        ]


def _twice(batch: Batch) -> Batch:
    fields = dataclasses.fields(batch)
    return Batch(**{f.name: torch.cat([getattr(batch, f.name)] * 2) for f in fields})


def _twice_differentiable(net: MultiTaskNet) -> MultiTaskNet:
    """The network with torch's own convolutions: the faster ones have no second derivative."""
    for module in net.modules():
        if isinstance(module, Conv3d):
            module.__class__ = nn.Conv3d  # type: ignore[assignment]  # its base
        elif isinstance(module, ConvTranspose3d):
            module.__class__ = nn.ConvTranspose3d  # type: ignore[assignment]  # its base
    return net
