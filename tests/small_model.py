"""A model's folder with random weights, which outlines something."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from gliofed.models.folder import recipe_of, write_model
from gliofed.models.network import build_net
from gliofed.study import NetworkConfig, parse_study
from gliofed.types import SEQUENCES

STUDY = parse_study(
    {
        "name": "s",
        "data": {"root": "r", "train": ["a"], "external": ["b"]},
        "net": {"preset": "small", "stem": [4, 4, 4]},
        "grid": {"spacing_mm": ["native", "native", "native"]},
        "prepare": {"space": "scanner", "register": False, "bias": False, "brain": "stripped"},
        "quality": {"brain_litres": [0.0, 9.0], "alignment": 0.0},
    }
)


def make_model(
    folder: Path, seed: int = 1, calibrations=None, trained_with=(), **changes: object
) -> Path:
    """trained_with: sequences of the training cases; none leaves the code of a new network."""
    net = build_net(NetworkConfig("small", (4, 4, 4)), seed)
    with torch.no_grad():
        net.mask.get_parameter("bias").fill_(0.5)  # so that something is outlined
        for sequence in trained_with:
            net.presence.weight[:, SEQUENCES.index(sequence)] = 0.1
    recipe = dataclasses.replace(recipe_of(STUDY, "ab" * 12, 3), **changes)
    write_model(folder, recipe, net.state_dict(), calibrations or {}, lambda _: "")
    return folder
