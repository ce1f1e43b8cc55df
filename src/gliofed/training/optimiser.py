"""AdamW (Loshchilov & Hutter 2019), its schedule, and its state as plain named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gliofed.errors import CheckpointError
from gliofed.study import TrainingConfig

_STATE = ("exp_avg", "exp_avg_sq", "step")


def make_optimiser(net: nn.Module, train: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over every parameter; biases and norms are not decayed.

    On a CPU the fused form, one pass over each parameter, takes a third of the time.
    """
    decayed = [p for p in net.parameters() if p.dim() > 1]
    free = [p for p in net.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": train.weight_decay},
              {"params": free, "weight_decay": 0.0}]  # fmt: skip
    fused = next(net.parameters()).device.type == "cpu"
    return torch.optim.AdamW(groups, lr=train.lr, fused=fused)


def learning_rate(train: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up over the first `train.warmup` of all steps, then a cosine down to 1 %."""
    warm = max(1, round(train.warmup * steps))
    if step < warm:
        return train.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def optimiser_state(net: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, Tensor]:
    """Moments and step counts by `<parameter>:<moment>`; parameters never stepped have none."""
    out = {}
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            out[f"{name}:{key}"] = value.detach().to("cpu").contiguous()
    return out


def with_steps(moments: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """Moments by `<parameter>:<moment>`, each parameter as if it had been stepped so often."""
    names = {name.rpartition(":")[0] for name in moments}
    return {**moments, **{f"{name}:step": torch.tensor(float(steps)) for name in names}}


def load_optimiser_state(
    net: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Put back what `optimiser_state` gave. Raises CheckpointError where names do not fit."""
    parameters = dict(net.named_parameters())
    for key, value in state.items():
        name, _, moment = key.rpartition(":")
        if name not in parameters or moment not in _STATE:
            raise CheckpointError(
                f"optimiser state {key!r} fits no parameter of this network; the run was started "
                "with another version or study: start it in a new folder"
            )
        parameter = parameters[name]
        target = value if moment == "step" else value.to(parameter.device)
        optimiser.state[parameter][moment] = target.clone()
