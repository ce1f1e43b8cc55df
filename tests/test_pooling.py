"""What the markers' heads read of a level, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gliofed.models.network import build_net
from gliofed.models.pooling import pool_in_mask, pooled_features
from gliofed.study import NetworkConfig


def in_box(shape: tuple[int, int, int], box: tuple[slice, slice, slice]) -> torch.Tensor:
    """Logits of a mask that is 1 in the box and 0 outside."""
    logits = torch.full((1, 1, *shape), -50.0)
    logits[0, 0][box] = 50.0
    return logits


def test_the_statistics_are_those_of_the_voxels_in_the_mask() -> None:
    rng = np.random.default_rng(0)
    level = rng.standard_normal((1, 3, 4, 6, 5)).astype(np.float32)
    box = (slice(1, 3), slice(2, 5), slice(0, 4))
    volume, mean, largest, spread = pool_in_mask(
        [torch.from_numpy(level)], in_box((4, 6, 5), box), [(1, 1, 1)]
    )
    inside = level[0][:, *box].reshape(3, -1)
    assert volume.item() == pytest.approx(0.1 * np.log(1 + 24), abs=1e-6)
    assert mean[0].tolist() == pytest.approx(inside.mean(1).tolist(), abs=1e-4)
    assert largest[0].tolist() == pytest.approx(inside.max(1).tolist(), abs=1e-6)
    assert spread[0].tolist() == pytest.approx(inside.std(1).tolist(), abs=2e-3)


def test_a_coarser_level_is_weighted_by_the_share_of_its_voxels() -> None:
    """Seven voxels at stride 2 are four: of the last, half lies beyond the image."""
    logits = torch.full((1, 1, 7, 2, 2), -50.0)
    logits[0, 0, 2:5] = 50.0  # shares 0, 1, 1/2, 0
    values = torch.tensor([5.0, 1.0, 4.0, 9.0]).reshape(1, 1, 4, 1, 1)
    _, mean, largest, _ = pool_in_mask([values], logits, [(2, 2, 2)])
    assert mean.item() == pytest.approx((1 + 0.5 * 4) / 1.5, abs=1e-2)
    assert largest.item() == pytest.approx(2.0)
    logits[0, 0] = -50.0
    logits[0, 0, 6] = 50.0  # 1/2 of the last
    _, mean, largest, _ = pool_in_mask([values], logits, [(2, 2, 2)])
    assert mean.item() == pytest.approx(9, abs=0.05)
    assert largest.item() == pytest.approx(4.5)


def test_without_a_tumour_every_value_is_nearly_zero() -> None:
    level = torch.full((2, 3, 4, 4, 4), 7.0)
    pooled = pool_in_mask([level], torch.full((2, 1, 4, 4, 4), -50.0), [(1, 1, 1)])
    assert all(p.abs().max() <= 0.0101 for p in pooled)  # the spread is the root of 1e-4


@pytest.mark.parametrize("preset", ["small", "base", "parent"])
def test_the_levels_fit_for_sizes_that_no_stride_divides(preset) -> None:
    net = build_net(NetworkConfig(preset, pooling="mask"), 0).eval()
    image, present = torch.randn(1, 4, 37, 29, 31), torch.ones(1, 4)
    with torch.no_grad():
        output = net(image, present)
    assert output.mask.shape == (1, 1, 37, 29, 31)
    assert all(torch.isfinite(v).all() for v in output.markers.values())


def test_markers_do_not_train_the_mask_layer() -> None:
    net = build_net(NetworkConfig("small"), 0).train()
    assert net.spec.pooling == "mask"
    nn_weight = net.heads["idh"].layers[4].weight
    torch.nn.init.normal_(nn_weight)
    output = net(torch.randn(1, 4, 16, 16, 16), torch.ones(1, 4), torch.tensor([1]))
    output.markers["idh"].sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.mask.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.down.parameters())


def test_the_published_network_reads_global_maxima() -> None:
    assert build_net(NetworkConfig("parent"), 0).spec.pooling == "max"
    assert pooled_features(10, "max") == 10
    assert pooled_features(10, "mask") == 41
