"""Smaller gradients: what rounding costs at most, what error feedback gives back, and the gate."""

import dataclasses

import pytest
import torch
from test_fed import NONCE, training_request

from gliofed.errors import UpdateError
from gliofed.federated.client import Client, SiteData
from gliofed.federated.client_training import ClientSetup
from gliofed.federated.compression import RESIDUAL, SCALE, compress, expand
from gliofed.federated.gate import UpdateGate
from gliofed.federated.governance.policy import SitePolicy
from gliofed.federated.messages import load_update, save_request, save_update
from gliofed.federated.named_tensors import split_tensors
from gliofed.federated.wire import load
from gliofed.federation_config import FederationConfig
from gliofed.models.network import build_net
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig
from gliofed.types import Update

CPU = Device(torch.device("cpu"), bf16=False)
PACKED = ("bfloat16", "int8")


def rounded(tensor, how):
    packed, extra, residual = compress({"a": tensor}, how, {})
    return expand(packed, extra)["a"], residual["a"]


def bound(tensor, how):
    """The largest rounding error of each value."""
    if how == "bfloat16":  # 8 binary digits: half of the last one's place
        return torch.exp2(tensor.abs().clamp(min=1e-30).log2().floor() - 8)
    channels = tensor.shape[0] if tensor.dim() > 1 else 1
    scale = tensor.reshape(channels, -1).abs().amax(1) / 127
    return (scale / 2).reshape(-1, *[1] * (tensor.dim() - 1)).expand(tensor.shape)


def gradient(seed=0, shape=(4, 3, 5, 5, 5)):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([1e-4, 1.0, 30.0, 1e3])[:, None, None, None, None]
    return torch.randn(shape, generator=generator) * size


@pytest.mark.parametrize("how", PACKED)
def test_the_rounding_error_reaches_its_bound_and_not_more(how) -> None:
    whole = gradient()
    sent, residual = rounded(whole, how)
    assert torch.equal(residual, whole - sent)
    error = (residual.abs() / bound(whole, how)).flatten(1).amax(1)
    assert bool((error <= 1 + 1e-4).all())
    assert bool((error > 0.9).all())  # in every channel: each has its own scale


def test_values_by_hand() -> None:
    whole = torch.tensor([[127.0, 1.4, -1.6], [0.254, 0.0, -0.001]])
    packed, extra, residual = compress({"a": whole}, "int8", {})
    assert packed["a"].tolist() == [[127, 1, -2], [127, 0, 0]]
    assert extra[SCALE]["a"].tolist() == pytest.approx([1.0, 0.002])
    assert residual["a"].flatten().tolist() == pytest.approx([0, 0.4, 0.4, 0, 0, -0.001], abs=1e-6)
    sent, residual = rounded(torch.tensor([1 + 2**-8, 1 + 3 * 2**-8]), "bfloat16")  # ties, to even
    assert sent.tolist() == [1.0, 1 + 2**-6]
    assert residual.tolist() == [2**-8, -(2**-8)]


def test_a_bias_has_one_scale_and_none_sends_the_gradient_as_it_is() -> None:
    bias = torch.tensor([127.0, -3.0])
    packed, extra, residual = compress({"b": bias}, "int8", {})
    assert extra[SCALE]["b"].shape == (1,)
    assert torch.equal(expand(packed, extra)["b"], bias)
    packed, extra, residual = compress({"b": bias}, "none", {})
    assert torch.equal(packed["b"], bias)
    assert (extra, residual) == ({}, {})


@pytest.mark.parametrize("how", PACKED)
def test_zeros_stay_zeros(how) -> None:
    half = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    for whole in (torch.zeros(3, 2), torch.zeros(3), half):
        sent, residual = rounded(whole, how)
        assert not sent[whole == 0].any()
        assert bool(residual.isfinite().all())
    assert torch.allclose(sent, half, atol=0.01)


@pytest.mark.parametrize("how", PACKED)
def test_error_feedback_sums_to_the_truth(how) -> None:
    """What is missing after many rounds is one rounding error; without feedback it adds up."""
    whole = gradient(3)
    truth, fed_back, plain = (torch.zeros_like(whole, dtype=torch.float64) for _ in range(3))
    residual = {}
    rounds = 40
    for _ in range(rounds):
        truth += whole
        packed, extra, residual = compress({"a": whole}, how, residual)
        fed_back += expand(packed, extra)["a"]
        plain += rounded(whole, how)[0]
    torch.testing.assert_close(fed_back + residual["a"], truth, rtol=1e-5, atol=1e-3)
    # the last gradient with its residual is at most twice as large as the gradient
    one = bound(2 * whole.abs() + bound(whole, how), how)
    assert bool(((truth - fed_back).abs() <= 1.01 * one + 1e-6 * truth.abs()).all())
    assert (truth - plain).norm() > 5 * (truth - fed_back).norm()


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_leaves_the_residual_as_it_was(how, value) -> None:
    whole = gradient(4)
    _, _, before = compress({"a": whole, "b": torch.ones(2)}, how, {})
    bad = whole.clone()
    bad[1, 0, 0, 0, 0] = value
    packed, extra, after = compress({"a": bad, "b": torch.ones(2)}, how, before)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    told = [*packed.values(), *extra.get(SCALE, {}).values()]
    assert not all(bool(t.float().isfinite().all()) for t in told)  # for the gate to refuse


# ---- the gate

MODEL = {"up.0.weight": torch.ones(2, 3), "mask.bias": torch.ones(1)}


@pytest.fixture
def judge(tmp_path):
    """Sends an update of `tensors` and `extra` through the gate of a study."""

    def check(how, tensors, extra, largest=1000.0):
        limits = FederationConfig(compress=how, max_gradient=largest)
        save_update(tmp_path / "u", Update("run", 3, NONCE, "a", tensors, 4, {}, {}, extra))
        return UpdateGate(training_request(MODEL), limits).check("a", tmp_path / "u")

    return check


def sent_by(how):
    whole = {"up.0.weight": torch.tensor([[3.0, 0, 0], [0, 4.0, 0]]), "mask.bias": torch.zeros(1)}
    packed, extra, _ = compress(whole, how, {})
    return whole, packed, extra


@pytest.mark.parametrize("how", PACKED)
def test_the_gate_gives_the_gradient_and_bounds_its_norm(how, judge) -> None:
    whole, packed, extra = sent_by(how)
    got = judge(how, packed, extra, largest=5.001).tensors
    assert {t.dtype for t in got.values()} == {torch.float32}
    for name, tensor in whole.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-6)
    with pytest.raises(UpdateError, match=r"gradient has norm 5, above the bound 4.999"):
        judge(how, packed, extra, largest=4.999)


def test_the_gate_refuses_another_dtype_or_scale(judge) -> None:
    whole, packed, extra = sent_by("int8")
    scales = extra[SCALE]
    name = "up.0.weight"

    def with_scale(scale):
        return {SCALE: {**scales, name: torch.tensor(scale)}}

    for how, tensors, other, words in (
        ("int8", whole, extra, "float32, expected .* torch.int8"),
        ("int8", {**packed, name: packed[name].to(torch.uint8)}, extra, "uint8, expected"),
        ("bfloat16", whole, {}, "float32, expected .* torch.bfloat16"),
        ("bfloat16", packed, {}, "int8, expected .* torch.bfloat16"),
        ("none", packed, {}, "int8, expected .* torch.float32"),
        ("none", sent_by("bfloat16")[1], {}, "bfloat16, expected .* torch.float32"),
        ("none", whole, extra, "tensors the model lacks: .*scale"),
        ("int8", packed, {}, "lacks tensors of the model: .*scale"),
        ("int8", packed, with_scale([1.0]), r"scale is \(1,\) torch.float32, expected \(2,\)"),
        ("int8", packed, with_scale([1.0, -1e-9]), f"{name}:scale has values below 0"),
        ("int8", packed, with_scale([1.0, torch.nan]), "scale has NaN or infinite values"),
        ("int8", packed, with_scale([1.0, torch.inf]), "scale has NaN or infinite values"),
    ):
        with pytest.raises(UpdateError, match=words):
            judge(how, tensors, other)
    double = {SCALE: {**scales, name: scales[name].double()}}
    with pytest.raises(UpdateError, match=r"scale is \(2,\) torch.float64"):
        judge("int8", packed, double)
    judge("int8", packed, with_scale([0.0, 1.0]))


# ---- at a site


def client_of(study, cases, folder, policy=None):
    return Client(SiteData("a", cases), ClientSetup(study, 1, folder, CPU), policy)


def request_of(study, number, batches=1):
    weights = build_net(NetworkConfig("small"), 1).state_dict()
    one = training_request(weights)
    counts = {"idh": 4, "mask": 0, "mgmt": 0, "codel_1p19q": 0, "grade": 0}
    return dataclasses.replace(
        one, round=number, batches=batches, class_weights={"idh": (1.0, 1.0)}, labelled=counts
    )


@pytest.mark.parametrize("how", PACKED)
def test_a_site_bounds_the_norm_of_the_gradient_and_not_of_what_it_is_packed_in(
    make_prepared, tiny_study, tmp_path, how
) -> None:
    rules = dataclasses.replace(tiny_study.federation, compress=how)
    study = dataclasses.replace(tiny_study, federation=rules)
    cases = [make_prepared(f"c{i}", {"idh": "mutant"}, mask=False) for i in range(4)]
    save_request(tmp_path / "request", request_of(study, 0))
    policy = SitePolicy(min_cases=1, max_gradient=1000.0, smallest_count=1)
    client_of(study, cases, tmp_path / "a", policy).respond(tmp_path / "request", tmp_path / "u")
    update = load_update(tmp_path / "u")
    size = (
        float(sum(t.square().sum() for t in expand(update.tensors, update.extra).values())) ** 0.5
    )
    raw = float(sum(t.float().square().sum() for t in update.tensors.values())) ** 0.5
    assert 0 < size < 1000
    assert (raw > 1000) == (how == "int8")


def test_a_residual_is_kept_for_the_commits_that_a_run_may_continue_from(
    make_prepared, tiny_study, tmp_path
) -> None:
    """Of a site with cases in 5 of 8 rounds, where a commit follows each fourth round."""
    rules = dataclasses.replace(tiny_study.federation, compress="int8", commit=4)
    study = dataclasses.replace(tiny_study, federation=rules)
    cases = [make_prepared(f"c{i}", {"idh": "mutant"}, mask=False) for i in range(5)]
    client = client_of(study, cases, tmp_path / "a")
    took_part = []
    for number in range(24):
        request = dataclasses.replace(request_of(study, number, batches=8), rounds=24)
        save_request(tmp_path / "request", request)
        client.respond(tmp_path / "request", tmp_path / "u")
        if load_update(tmp_path / "u").cases:
            took_part.append(number)
        kept = {int(p.stem[-5:]) for p in (tmp_path / "a").glob("after-*")}
        commits = [r for r in range(number + 2) if r % 4 == 0][-2:]
        for end in (number + 1, *commits):
            earlier = [r for r in took_part if r < end]
            assert not earlier or max(earlier) in kept, (number, end)
        assert len(kept) <= 3
    assert len(took_part) == 15
    residual = split_tensors(load(max((tmp_path / "a").glob("after-*")))[0])[1]
    assert set(residual) == {RESIDUAL}
