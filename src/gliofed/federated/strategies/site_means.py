"""The running mean of each site's gradients, so that sites can be compared with each other.

The gradient of one or two patients is mostly noise, and a robust mean of noise drops the patients
of rare classes. The running mean over ten rounds or so is closer to the gradient of all cases of
the site (Karimireddy et al. 2021, Learning from history for Byzantine robust optimization, ICML).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from torch import Tensor

from gliofed.federated.aggregation.merge import ReadTensor
from gliofed.types import TensorsByKind

_KIND: Final = "mean@"
_MOMENTUM: Final = 0.9


class SiteMeans:
    """For each site, the exponential running mean of its gradients a case, float32."""

    def __init__(self, state: TensorsByKind) -> None:
        self._means: dict[str, dict[str, Tensor]] = {
            kind.removeprefix(_KIND): dict(own)
            for kind, own in state.items()
            if kind.startswith(_KIND)
        }

    @property
    def state(self) -> TensorsByKind:
        """To continue from."""
        return {f"{_KIND}{site}": own for site, own in self._means.items()}

    def add(self, site: str, read: ReadTensor, names: Iterable[str], factor: float) -> None:
        """Take in a gradient; `factor` times it is one a case. The first one is the mean."""
        before = self._means.get(site)
        now = {name: read(name) * factor for name in names}
        if before is not None:
            now = {name: before[name].lerp(value, 1 - _MOMENTUM) for name, value in now.items()}
        self._means[site] = now

    def of(self, site: str) -> Mapping[str, Tensor] | None:
        """By parameter; None before the site's first gradient."""
        return self._means.get(site)


def without_means(state: TensorsByKind) -> TensorsByKind:
    """The rest of a server's state."""
    return {kind: own for kind, own in state.items() if not kind.startswith(_KIND)}
