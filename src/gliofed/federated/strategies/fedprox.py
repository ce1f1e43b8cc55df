"""FedProx: local steps are pulled back towards the round's model."""

from __future__ import annotations

from typing import Final

from gliofed.federated.strategies.averaging import MeanOfModels
from gliofed.federated.strategies.halves import ClientHalf, Strategy


class ProximalSteps(ClientHalf):
    """The site's half: the gradient of mu / 2 x |weights - round's weights|^2 is added."""

    def correct(self) -> None:
        """Add mu x (weights - round's weights)."""
        for name, parameter in self.work.parameters.items():
            if parameter.grad is not None:
                change = parameter.detach() - self.work.weights[name].to(parameter.device)
                parameter.grad.add_(change, alpha=self.work.config.proximal)


FEDPROX: Final = Strategy(
    id="fedprox",
    source="Li et al. 2020, Federated optimization in heterogeneous networks (MLSys)",
    takes_steps=True,
    server=MeanOfModels,
    client=ProximalSteps,
)
