"""The layers give torch's answers by whatever way they are computed."""

import pytest
import torch

from gliofed.models import blocks
from gliofed.models.blocks import Conv3d, ConvTranspose3d
from gliofed.models.pooling import global_max


def _answers(layer: torch.nn.Module, x: torch.Tensor, towards: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of image, weight and bias for the output's gradient."""
    layer.zero_grad()
    image = x.clone().requires_grad_()
    out = layer(image)
    out.backward(towards)
    return [out.detach(), image.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("sides", [(4, 4, 4), (5, 3, 7), (1, 1, 1)])
@pytest.mark.parametrize("kernel", [(2, 2, 2), (4, 4, 4), (2, 2, 1), (3, 3, 3), (1, 2, 4)])
def test_kernel_equal_to_stride_is_a_product_with_torchs_answers(rows, sides, kernel) -> None:
    torch.manual_seed(0)
    ours, torchs = (c(24, 1, kernel, kernel) for c in (ConvTranspose3d, torch.nn.ConvTranspose3d))
    ours.load_state_dict(torchs.state_dict())
    image = torch.randn(rows, 24, *sides)
    towards = torch.randn(rows, 1, *(n * k for n, k in zip(sides, kernel, strict=True)))
    own, wanted = _answers(ours, image, towards), _answers(torchs.double(), image.double(), towards)
    for a, b in zip(own, wanted, strict=True):
        assert a.shape == b.shape
        assert a.is_contiguous()
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 1), (48, 24), (128, 3), (129, 3)])
def test_a_product_in_bfloat16_has_its_errors_only(shape) -> None:
    torch.manual_seed(0)
    ours = ConvTranspose3d(*shape, 2, 2)
    image, towards = torch.randn(2, shape[0], 5, 4, 3), torch.rand(2, shape[1], 10, 8, 6)
    wanted = _answers(ours, image, towards)
    with torch.autocast("cpu", torch.bfloat16):
        own = _answers(ours, image, towards)
    assert own[0].dtype == torch.bfloat16
    for a, b in zip(own, wanted, strict=True):
        assert (a - b).norm() <= 0.01 * b.norm()


def test_only_few_channels_are_a_product(monkeypatch) -> None:
    asked = []
    given = torch.baddbmm
    monkeypatch.setattr(torch, "baddbmm", lambda *a: asked.append(0) or given(*a))

    def is_product(layer, bf16=False, form=torch.contiguous_format, output_size=None) -> bool:
        image = torch.randn(2, layer.in_channels, 6, 6, 6).contiguous(memory_format=form)
        asked.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            layer(image, output_size)
        return bool(asked)

    assert is_product(ConvTranspose3d(200, 1, 2, 2))
    assert not is_product(ConvTranspose3d(128, 2, 2, 2))
    assert is_product(ConvTranspose3d(128, 2, 2, 2), bf16=True)
    assert not is_product(ConvTranspose3d(129, 2, 2, 2), bf16=True)
    assert not is_product(ConvTranspose3d(24, 1, 2, 2), form=torch.channels_last_3d)
    assert not is_product(ConvTranspose3d(24, 1, 2, 2), output_size=[13, 12, 12])
    assert not is_product(ConvTranspose3d(24, 1, 3, 2))
    assert not is_product(ConvTranspose3d(24, 1, 2, 2, bias=False))
    assert not is_product(ConvTranspose3d(24, 1, 2, 2, padding=1))
    assert not is_product(ConvTranspose3d(24, 1, 2, 2, dilation=2))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("sides", [(2, 2, 2), (1, 3, 2), (1, 1, 1)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), ((3, 1, 2), (1, 1, 2)), (9, 3)])
def test_few_voxels_are_a_product_with_torchs_answers(rows, sides, kernel, stride) -> None:
    torch.manual_seed(0)
    padding = 4 if kernel == 9 else 1
    ours, torchs = (c(6, 5, kernel, stride, padding) for c in (Conv3d, torch.nn.Conv3d))
    ours.load_state_dict(torchs.state_dict())
    ours.forward = ours._product
    image = torch.randn(rows, 6, *sides)
    towards = torch.randn_like(torchs(image))
    own, wanted = _answers(ours, image, towards), _answers(torchs.double(), image.double(), towards)
    for a, b in zip(own, wanted, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 2, 4, 4), (4, 3, 2, 2, 2), (33, 3, 1, 1, 1)])
def test_only_few_voxels_are_a_product(shape) -> None:
    conv, image = Conv3d(3, 4, 3, 1, 1), torch.randn(shape)
    voxels = shape[0] * shape[2] * shape[3] * shape[4]
    last = Conv3d(3, 4, 3, 1, 1).to(memory_format=torch.channels_last_3d)
    assert not blocks._few_positions(image, conv)  # in float32
    with torch.autocast("cpu", torch.bfloat16):
        assert blocks._few_positions(image, conv) == (voxels <= 32)
        for other in (
            last,
            Conv3d(3, 4, 1),
            Conv3d(3, 3, 3, groups=3),
            Conv3d(3, 4, 3, dilation=2),
        ):
            assert not blocks._few_positions(torch.randn(1, 3, 3, 3, 3), other)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last_3d])
def test_the_maximum_of_a_channel_has_the_gradient(form) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=form).requires_grad_()
    towards = torch.randn(2, 3)
    global_max(image).backward(towards)
    own = image.grad.clone()
    image.grad = None
    highest = image.amax(dim=(2, 3, 4))
    highest.backward(towards)
    assert torch.equal(global_max(image), highest)
    assert torch.equal(global_max(image.detach()), highest)
    assert torch.equal(own, image.grad)
