"""What the server is given to train one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gliofed.federated.privacy.identity import UNSIGNED, Identity
from gliofed.study import Study

InitialWeights = Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class FederatedRun:
    """One model to train.

    run: id that binds messages and checkpoints. seed: of the weights before the first round.
    folder: of the committed rounds. initial: called for the weights before the first round; None
    for random ones. identity: checks the keys of secret sums.
    """

    study: Study
    run: str
    seed: int
    folder: Path
    initial: InitialWeights | None = None
    identity: Identity = UNSIGNED
