"""AdamW (Loshchilov & Hutter 2019), its learning rate schedule, and its state as named tensors.

Pooled training and the server of a synchronous federation take their steps with `clipped_step`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from gliofed.errors import CheckpointError
from gliofed.models.network import TRUNK_TASK, task_of
from gliofed.study import TrainingConfig
from gliofed.types import TensorsByKind

KINDS: Final = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW has for each parameter: both moments, and the number of its steps."""
Parameters = Mapping[str, Tensor]
"""Parameter name to a leaf tensor that requires a gradient."""


def make_optimiser(parameters: Parameters, train: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over every parameter; biases and norms have no weight decay.

    On a CPU the fused form takes a third of the time: it passes over each parameter once.
    """
    decayed = [p for p in parameters.values() if p.dim() > 1]
    not_decayed = [p for p in parameters.values() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": train.weight_decay},
        {"params": not_decayed, "weight_decay": 0.0},
    ]
    fused = next(iter(parameters.values())).device.type == "cpu"
    return torch.optim.AdamW(groups, lr=train.lr, fused=fused)


def learning_rate(train: TrainingConfig, step: int, steps: int) -> float:
    """Linear warm-up over the first `train.warmup` of all steps, then a cosine down to 1 %."""
    warmup_steps = max(1, round(train.warmup * steps))
    if step < warmup_steps:
        return train.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return train.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def clipped_step(
    parameters: Parameters, optimiser: torch.optim.Optimizer, lr: float, clip: float
) -> float:
    """One step along the parameters' gradients, clipped to norm `clip`; their norm before that.

    A head whose gradient is 0 in every value takes no step, so that weight decay and momentum
    leave it unchanged too. Where the norm is not finite, no parameter takes one.
    """
    for group in optimiser.param_groups:
        group["lr"] = lr
    _leave_out_untrained_heads(parameters)
    trained = [p for p in parameters.values() if p.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(trained, clip)
    if bool(torch.isfinite(norm)):
        optimiser.step()
    return float(norm)


def _leave_out_untrained_heads(parameters: Parameters) -> None:
    heads: dict[str, list[Tensor]] = defaultdict(list)
    for name, parameter in parameters.items():
        if (task := task_of(name)) != TRUNK_TASK:
            heads[task].append(parameter)
    for own in heads.values():
        if not any(p.grad is not None and bool(p.grad.any()) for p in own):
            for parameter in own:
                parameter.grad = None


def optimiser_state(parameters: Parameters, optimiser: torch.optim.Optimizer) -> TensorsByKind:
    """Moments and step counts on the CPU; parameters without a step have none."""
    state: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    for name, parameter in parameters.items():
        for kind, value in optimiser.state.get(parameter, {}).items():
            state[kind][name] = value.detach().to("cpu").contiguous()
    return state


def load_optimiser_state(
    parameters: Parameters, optimiser: torch.optim.Optimizer, state: TensorsByKind
) -> None:
    """Load what `optimiser_state` returned. Raises CheckpointError if names do not fit."""
    for kind, tensors in state.items():
        for name, value in tensors.items():
            if name not in parameters or kind not in KINDS:
                raise CheckpointError(
                    f"optimiser state {name}:{kind} fits no parameter of this network; the run was "
                    "started with another version or study: start it in a new folder"
                )
            parameter = parameters[name]
            tensor = value if kind == "step" else value.to(parameter.device)
            optimiser.state[parameter][kind] = tensor.clone()
