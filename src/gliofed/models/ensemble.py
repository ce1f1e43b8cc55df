"""Several networks as one predictor: the mean of their probabilities.

Lakshminarayanan et al. 2017 (NeurIPS 30): networks that differ in their random initial weights; the
spread between them measures uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from torch import nn

from gliofed.models.network import MultiTaskNet


class Ensemble(nn.Module):
    """members: networks of the same layers. Predictions are averaged by `inference.forward`."""

    def __init__(self, members: Iterable[MultiTaskNet]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)


Network: TypeAlias = MultiTaskNet | Ensemble


def members_of(network: Network) -> tuple[MultiTaskNet, ...]:
    """The networks of an ensemble, or the one network."""
    if not isinstance(network, Ensemble):
        return (network,)
    return tuple(m for m in network.members if isinstance(m, MultiTaskNet))
