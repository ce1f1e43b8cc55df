"""AdamW as pooled training and the server of a synchronous federation step with it."""

import numpy as np
import pytest
import torch

from gliofed.models.optimiser import clipped_step, make_optimiser, optimiser_state
from gliofed.study import TrainingConfig


@pytest.mark.parametrize("clip", [0.5, 5.1, 60.0])
def test_a_clipped_step_is_adamw_by_hand(clip) -> None:
    """The norms of the two gradients are 5 and 50."""
    train = TrainingConfig(lr=1.0, weight_decay=0.1)
    parameters = {
        "up.0.weight": torch.tensor([[2.0, -1.0]], requires_grad=True),  # decays
        "up.0.bias": torch.tensor([1.0], requires_grad=True),  # does not
    }
    optimiser = make_optimiser(parameters, train)
    values = np.array([2.0, -1.0, 1.0])
    decay = np.array([0.1, 0.1, 0.0])
    first, second = np.zeros(3), np.zeros(3)
    for step, lr, norm, gradient in ((1, 0.01, 5.0, [3.0, 0, 4]), (2, 0.02, 50.0, [0, -40.0, 30])):
        parameters["up.0.weight"].grad = torch.tensor([gradient[:2]], dtype=torch.float32)
        parameters["up.0.bias"].grad = torch.tensor(gradient[2:], dtype=torch.float32)
        assert clipped_step(parameters, optimiser, lr, clip) == pytest.approx(norm)
        clipped = np.array(gradient) * min(1, clip / norm)
        first = 0.9 * first + 0.1 * clipped
        second = 0.999 * second + 0.001 * clipped**2
        divisor = np.sqrt(second / (1 - 0.999**step)) + 1e-8
        values = values * (1 - lr * decay) - lr * first / (1 - 0.9**step) / divisor
        found = torch.cat([p.detach().flatten() for p in parameters.values()])
        np.testing.assert_allclose(found, values, rtol=1e-4)


def test_a_head_without_gradient_and_a_step_without_a_finite_norm_change_nothing() -> None:
    train = TrainingConfig(lr=0.1, weight_decay=0.1)
    shapes = ("up.0.weight", "heads.idh.layers.1.weight", "heads.mgmt.layers.1.weight")
    parameters = {n: torch.ones(1, 1, requires_grad=True) for n in shapes}
    optimiser = make_optimiser(parameters, train)
    for gradient in (1.0, 0.0):
        for parameter in parameters.values():
            parameter.grad = torch.ones(1, 1)
        parameters["heads.mgmt.layers.1.weight"].grad = torch.full((1, 1), gradient)
        before = {k: v.detach().clone() for k, v in parameters.items()}
        clipped_step(parameters, optimiser, 0.1, 5.0)
        unmoved = {k for k, v in parameters.items() if torch.equal(v, before[k])}
        assert unmoved == (set() if gradient else {"heads.mgmt.layers.1.weight"})
    before = {k: v.detach().clone() for k, v in parameters.items()}
    state = optimiser_state(parameters, optimiser)
    steps = {k: v.clone() for k, v in state["step"].items()}
    assert [float(v) for v in steps.values()] == [2, 2, 1]
    for parameter in parameters.values():
        parameter.grad = torch.full((1, 1), torch.nan)
    assert np.isnan(clipped_step(parameters, optimiser, 0.1, 5.0))
    assert all(torch.equal(v, before[k]) for k, v in parameters.items())
    after = optimiser_state(parameters, optimiser)
    assert all(torch.equal(v, after["step"][k]) for k, v in steps.items())
    assert not any(bool(t.isnan().any()) for own in after.values() for t in own.values())
