"""One forward pass over the whole brain box."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from gliofed.io.store import Prepared
from gliofed.learn.machine import Machine
from gliofed.nets.unet import Answers, MultiTaskNet
from gliofed.types import Prediction


def predict(net: MultiTaskNet, prepared: Prepared, machine: Machine, mirror: bool) -> Prediction:
    """The network's answer for one case, on the prepared grid.

    mirror: average with the answer for the left-right mirrored scan.
    """
    net.eval()
    image = torch.from_numpy(prepared.image.astype(np.float32))[None].to(machine.device)
    present = torch.tensor([prepared.present], dtype=torch.float32, device=machine.device)
    probability, markers = _probabilities(_answer(net, image, present, machine))
    if mirror:
        flipped, again = _probabilities(_answer(net, image.flip(2), present, machine))
        probability = (probability + flipped.flip(0)) / 2
        markers = {k: (v + again[k]) / 2 for k, v in markers.items()}
    return Prediction(
        probability=probability.cpu().numpy(),
        affine=prepared.affine,
        markers={k: tuple(v.tolist()) for k, v in markers.items()},
    )


def _answer(
    net: MultiTaskNet, image: torch.Tensor, present: torch.Tensor, machine: Machine
) -> Answers:
    with torch.inference_mode(), machine.autocast():
        answers: Answers = net(image, present)
    return answers


def _probabilities(answers: Answers) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(X, Y, Z) tumour probability and float64 class probabilities."""
    mask = answers.mask.float().sigmoid()[0, 0]
    markers = {k: functional.softmax(v.double(), 1)[0] for k, v in answers.markers.items()}
    return mask, markers
