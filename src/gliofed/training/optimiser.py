"""AdamW (Loshchilov & Hutter 2019), its learning rate schedule, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gliofed.errors import CheckpointError
from gliofed.study import TrainingConfig
from gliofed.types import OptimiserMoments

_STATE = ("exp_avg", "exp_avg_sq", "step")


def make_optimiser(net: nn.Module, train: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over every parameter; biases and norms have no weight decay.

    On a CPU the fused form takes a third of the time: it passes over each parameter once.
    """
    decayed = [p for p in net.parameters() if p.dim() > 1]
    not_decayed = [p for p in net.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
    ]
    fused = next(net.parameters()).device.type == "cpu"
    return torch.optim.AdamW(groups, lr=train.lr, fused=fused)


def learning_rate(train: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up over the first `train.warmup` of all steps, then a cosine down to 1 %."""
    warmup_steps = max(1, round(train.warmup * steps))
    if step < warmup_steps:
        return train.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def optimiser_state(net: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, Tensor]:
    """Moments and step counts by `<parameter>:<moment>`; parameters without a step have none."""
    state = {}
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            state[f"{name}:{key}"] = value.detach().to("cpu").contiguous()
    return state


def moments_of(
    net: nn.Module, optimiser: torch.optim.Optimizer, before: OptimiserMoments
) -> OptimiserMoments:
    """The optimiser's moments on the CPU; a parameter without a step keeps those of `before`."""
    exp_avg, exp_avg_sq = dict(before.exp_avg), dict(before.exp_avg_sq)
    for name, parameter in net.named_parameters():
        state = optimiser.state.get(parameter)
        if state:
            exp_avg[name] = state["exp_avg"].detach().to("cpu").contiguous()
            exp_avg_sq[name] = state["exp_avg_sq"].detach().to("cpu").contiguous()
    return OptimiserMoments(exp_avg, exp_avg_sq)


def load_moments(
    net: nn.Module, optimiser: torch.optim.Optimizer, moments: OptimiserMoments, steps: int
) -> None:
    """Set the moments of the optimiser, and the step count of every parameter to `steps`.

    Raises CheckpointError for names that are not parameters of the network.
    """
    state = {
        f"{name}:{kind}": t for kind, own in moments.by_kind.items() for name, t in own.items()
    }
    counts = {f"{name}:step": torch.tensor(float(steps)) for name in moments.exp_avg}
    load_optimiser_state(net, optimiser, {**state, **counts})


def load_optimiser_state(
    net: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Load what `optimiser_state` returned. Raises CheckpointError if names do not fit."""
    parameters = dict(net.named_parameters())
    for key, value in state.items():
        name, _, moment = key.rpartition(":")
        if name not in parameters or moment not in _STATE:
            raise CheckpointError(
                f"optimiser state {key!r} fits no parameter of this network; the run was started "
                "with another version or study: start it in a new folder"
            )
        parameter = parameters[name]
        tensor = value if moment == "step" else value.to(parameter.device)
        optimiser.state[parameter][moment] = tensor.clone()
