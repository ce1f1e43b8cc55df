"""What is unknown teaches nothing; what is known is learnt the same way twice."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from gliofed.errors import CheckpointError, StudyError
from gliofed.inference.forward import predict
from gliofed.markers import MARKERS
from gliofed.models.blocks import Conv3d, ConvTranspose3d
from gliofed.models.network import build_net, parameter_count, task_of
from gliofed.models.optimiser import (
    learning_rate,
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
)
from gliofed.models.presets import PRESETS
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig, TrainingConfig, parse_study
from gliofed.training.augmentation import (
    ScanVolume,
    augment_intensity,
    drop_sequences,
    sample_patch,
)
from gliofed.training.loop import TrainingPlan, fit
from gliofed.training.loss import LossScale, marker_losses, mask_losses, total_loss
from gliofed.training.samples import collate, draw_sample
from gliofed.types import SEQUENCES

CPU = Device(torch.device("cpu"), bf16=False)
ONES = {m.id: torch.ones(len(m.classes)) for m in MARKERS}
EQUAL = {"mask": 1.0, **{m.id: 1.0 for m in MARKERS}}
FULL = {"idh": "mutant", "codel_1p19q": "intact", "mgmt": "methylated", "grade": "3"}


@pytest.fixture
def tiny_study():
    """With the network that studies have: few channels learn too slowly."""
    return parse_study(TINY)


def batch_of(cases, size=16):
    rng = np.random.default_rng(0)
    return collate(
        [
            draw_sample(c, (size,) * 3, TrainingConfig(augment=0, drop_sequence=0), rng)
            for c in cases
        ],
        cases,
    )


def gradients(net, batch, tasks=EQUAL):
    net.zero_grad(set_to_none=True)
    net.eval()  # no dropout: two batches are compared
    loss, _ = total_loss(net(batch.image, batch.present), batch, LossScale(tasks, ONES))
    if loss is not None:
        loss.backward()
    return {k: p.grad for k, p in net.named_parameters()}


@pytest.mark.parametrize("marker", MARKERS, ids=lambda m: m.id)
def test_an_unknown_label_gives_its_head_no_gradient(make_prepared, marker) -> None:
    labels = {k: v for k, v in FULL.items() if k != marker.id}
    net = build_net(NetworkConfig("small"), 0)
    found = gradients(net, batch_of([make_prepared("a", labels)]))
    for name, gradient in found.items():
        assert (gradient is None) == (task_of(name) == marker.id), name


@pytest.mark.parametrize("kind", ["absent", "empty"])
def test_an_absent_or_empty_mask_changes_nothing_at_all(make_prepared, kind) -> None:
    without = make_prepared("a", FULL, tumour=kind == "absent", mask=kind == "empty")
    net = build_net(NetworkConfig("small"), 0)
    batch = batch_of([without])
    found = gradients(net, batch)
    only_markers = gradients(net, batch, {**EQUAL, "mask": 0.0})
    assert found["mask.weight"] is None
    for name, gradient in found.items():
        other = only_markers[name]
        assert (gradient is None) == (other is None)
        assert gradient is None or torch.equal(gradient, other), name


def test_an_unknown_row_adds_exactly_nothing_beside_a_known_one(make_prepared) -> None:
    known, unknown = make_prepared("a", {"idh": "mutant"}), make_prepared("b", {}, mask=False)
    net = build_net(NetworkConfig("small"), 0)
    both, alone = gradients(net, batch_of([known, unknown])), gradients(net, batch_of([known]))
    for name, gradient in both.items():
        assert (gradient is None) == (alone[name] is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, alone[name], rtol=1e-4, atol=1e-6)


def plan_of(study, cases, seed=0, epochs=1) -> TrainingPlan:
    batches = -(-len(cases) // 2)
    return TrainingPlan(
        study=study,
        sites={"here": cases},
        task_weights=dict.fromkeys(EQUAL, 0.5),
        class_weights={m.id: (1.0,) * len(m.classes) for m in MARKERS},
        seed=seed,
        batches=batches,
        steps=epochs * batches,
        machine=CPU,
    )


def optimiser_of(net, study):
    return make_optimiser(dict(net.named_parameters()), study.train)


def test_with_nothing_known_there_is_no_loss_and_no_step(make_prepared, tiny_study) -> None:
    net = build_net(NetworkConfig("small"), 0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    plan = plan_of(tiny_study, [make_prepared("a", {}, mask=False)])
    stats = fit(net, optimiser_of(net, tiny_study), plan, range(1))
    assert stats == {}
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_losses_agree_with_their_formulas() -> None:
    logits, mask = torch.full((1, 1, 2, 2, 2), 20.0), torch.ones(1, 1, 2, 2, 2)
    assert mask_losses(logits, mask).item() < 1e-4
    assert mask_losses(-logits, mask).item() > 20
    nothing = torch.zeros_like(mask)
    assert mask_losses(-logits, nothing).item() < 1e-4  # a patch beside the tumour
    rows = mask_losses(torch.cat([logits, -logits]), torch.cat([mask, mask]))
    assert torch.equal(rows, torch.cat([mask_losses(logits, mask), mask_losses(-logits, mask)]))
    two = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    labels, weights = torch.tensor([1, 0]), torch.tensor([0.5, 2.0])
    expected = [2.0 * np.log(1 + np.exp(-1)), 0.5 * np.log(1 + np.exp(-2))]
    assert marker_losses(two, labels, weights, 0.0).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_loss_is_the_weighted_sum_over_rows_and_not_their_mean(make_prepared) -> None:
    cases = [make_prepared("a", FULL), make_prepared("b", {"idh": "wildtype"}, mask=False)]
    batch = batch_of(cases)
    net = build_net(NetworkConfig("small"), 0).eval()
    tasks = {"mask": 0.5, "idh": 3.0, "codel_1p19q": 0.25, "mgmt": 0.0, "grade": 2.0}
    with torch.no_grad():
        output = net(batch.image, batch.present)
        loss, stats = total_loss(output, batch, LossScale(tasks, ONES))
    assert {k: s.weight for k, s in stats.items() if k != "dice"} == {
        "mask": 1, "idh": 2, "codel_1p19q": 1, "grade": 1,
    }  # fmt: skip
    own = [
        -torch.log_softmax(output.markers["idh"], 1)[row, label] for row, label in ((0, 1), (1, 0))
    ]
    assert stats["idh"].sum == pytest.approx(float(sum(own)), rel=1e-5)
    wanted = sum(tasks[k] * s.sum for k, s in stats.items() if k != "dice")
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_dropout_of_a_row_does_not_depend_on_its_batch() -> None:
    net = build_net(NetworkConfig("small"), 0).train()
    image, present = torch.randn(3, 4, 16, 16, 16), torch.ones(3, 4)
    seeds = torch.tensor([5, 6, 2**62 - 1])
    with torch.no_grad():
        together = net(image, present, seeds).markers["grade"]
        turned = net(image.flip(0), present, seeds.flip(0)).markers["grade"].flip(0)
        other = net(image, present, seeds + 1).markers["grade"]
    torch.testing.assert_close(together, turned, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together, other, rtol=1e-3, atol=1e-4)


def test_a_weight_of_zero_takes_the_task_out(make_prepared) -> None:
    found = gradients(build_net(NetworkConfig("small"), 0), batch_of([make_prepared("a", FULL)]),
                      {**EQUAL, "mgmt": 0.0})  # fmt: skip
    assert all(g is None for n, g in found.items() if task_of(n) == "mgmt")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(17, 20, 23), (32, 32, 16)])
def test_every_preset_answers_any_size_on_its_own_grid(preset, size) -> None:
    net = build_net(NetworkConfig(preset), 0).eval()
    with torch.inference_mode():
        mask, markers = net(torch.randn(1, 4, *size), torch.ones(1, 4))
    assert mask.shape == (1, 1, *size)
    assert {k: v.shape[1] for k, v in markers.items()} == {m.id: len(m.classes) for m in MARKERS}


def test_the_parent_is_laid_out_as_published() -> None:
    net = build_net(NetworkConfig("parent"), 0)
    assert net.spec.widths == (32, 64, 128, 256, 512)
    assert sum(net.spec.widths) + sum(net.spec.widths[:-1]) == 1472  # features of nine levels
    first = next(iter(net.heads.values())).layers[1]
    assert first.in_features == 1472 + len(SEQUENCES)
    assert first.out_features == 512
    assert net.stem.kernel_size == (9, 9, 9)
    assert net.stem.stride == (3, 3, 3)
    assert not any(isinstance(m, nn.GroupNorm | nn.BatchNorm3d) for m in net.modules())
    assert parameter_count(net) > 25e6
    with pytest.raises(StudyError, match="fixed"):
        build_net(NetworkConfig("parent", (2, 2, 2)), 0)
    with pytest.raises(StudyError, match="none of"):
        build_net(NetworkConfig("huge"), 0)


def test_the_presence_code_reaches_the_answer() -> None:
    net = build_net(NetworkConfig("small"), 0).eval()
    nn.init.normal_(net.presence.weight)
    image = torch.randn(1, 4, 16, 16, 16)
    with torch.inference_mode():
        all_there = net(image, torch.ones(1, 4)).mask
        one_hidden = net(image, torch.tensor([[1.0, 1, 0, 1]])).mask
    assert not torch.equal(all_there, one_hidden)


def test_dropping_keeps_one_sequence_and_never_adds_one() -> None:
    rng = np.random.default_rng(0)
    image, present = np.ones((4, 2, 2, 2), np.float32), np.array([1, 0, 1, 1], np.float32)
    kept = []
    for _ in range(200):
        out, there = drop_sequences(image, present, 0.5, rng)
        assert there.sum() >= 1
        assert there[1] == 0
        assert [bool(c.any()) for c in out] == [bool(t) for t in there]
        kept.append(there.sum())
    assert min(kept) == 1
    assert max(kept) == 3


def test_augmentation_moves_image_and_mask_together() -> None:
    image = np.zeros((4, 24, 24, 24), np.float16)
    mask = np.zeros((24, 24, 24), np.uint8)
    image[:, 6:14, 8:18, 9:16], mask[6:14, 8:18, 9:16] = 1, 1
    moved = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        volume = ScanVolume(image, mask, np.array([1, 1, 2.0]))
        out, placed = sample_patch(volume, np.full(3, 11.5), (24, 24, 24), 1, rng)
        same = (out[0] >= 0.5) == (placed > 0)
        assert same.mean() > 0.999
        moved += not np.array_equal(placed, mask)
    assert 10 < moved < 30


def test_without_augmentation_a_patch_is_a_plain_crop_or_pad() -> None:
    image = np.arange(4 * 10 * 12 * 8, dtype=np.float16).reshape(4, 10, 12, 8) % 97
    centre = (np.array(image.shape[1:]) - 1) / 2
    rng = np.random.default_rng(0)
    volume = ScanVolume(image, None, np.ones(3))
    out, placed = sample_patch(volume, centre, (16, 16, 16), 0, rng)
    np.testing.assert_array_equal(out[:, 3:13, 2:14, 4:12], image)
    assert out.sum() == image.astype(np.float32).sum()
    assert not placed.any()
    small, _ = sample_patch(volume, centre, (4, 4, 4), 0, rng)
    np.testing.assert_array_equal(small, image[:, 3:7, 4:8, 2:6])


def test_intensity_leaves_the_outside_at_zero() -> None:
    image = np.zeros((4, 6, 6, 6), np.float32)
    image[:, 2:4] = 1.0
    changed = [augment_intensity(image, 1, np.random.default_rng(s)) for s in range(20)]
    assert all(not c[:, :2].any() for c in changed)
    assert any(not np.array_equal(c, image) for c in changed)


def test_a_fit_is_the_same_twice_and_learns(make_prepared, tiny_study) -> None:
    cases = [make_prepared(f"c{i}", FULL if i % 2 else {"idh": "wildtype"}) for i in range(4)]
    plan = plan_of(tiny_study, cases, seed=7, epochs=12)

    def train():
        net = build_net(NetworkConfig("small"), 3)
        optimiser = optimiser_of(net, tiny_study)
        history = [fit(net, optimiser, plan, range(2 * e, 2 * e + 2)) for e in range(12)]
        return net, optimiser, history

    (net, optimiser, history), (again, _, _) = train(), train()
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert history[-1]["mask"].mean < 0.8 * history[0]["mask"].mean
    assert history[0]["idh"].weight == 4
    assert history[0]["mgmt"].weight == 2
    fresh = optimiser_of(again, tiny_study)
    own, others = dict(net.named_parameters()), dict(again.named_parameters())
    load_optimiser_state(others, fresh, optimiser_state(own, optimiser))
    for step in (net, optimiser), (again, fresh):
        fit(*step, plan, range(22, 24))
    assert all(
        torch.equal(a, b)
        for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    )
    for wrong in {"step": {"other": torch.ones(1)}}, {"speed": {"mask.bias": torch.ones(1)}}:
        with pytest.raises(CheckpointError, match="fits no parameter"):
            load_optimiser_state(own, fresh, wrong)


def test_a_case_that_makes_nan_changes_no_weight(make_prepared, tiny_study) -> None:
    bad = dataclasses.replace(
        make_prepared("a", FULL), image=np.full((4, 16, 16, 16), np.nan, np.float16)
    )
    net = build_net(NetworkConfig("small"), 0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    plan = plan_of(tiny_study, [bad])
    stats = fit(net, optimiser_of(net, tiny_study), plan, range(1))
    assert stats["skipped"].sum == 1
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_the_rate_warms_up_and_runs_down() -> None:
    train = TrainingConfig(lr=1.0, warmup=0.1)
    rates = [learning_rate(train, s, 100) for s in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert np.argmax(rates) in (9, 10)
    assert rates[-1] < 0.02
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_a_mirrored_prediction_of_a_mirrored_scan_is_the_mirror_image(make_prepared) -> None:
    net = build_net(NetworkConfig("small"), 0)
    case = make_prepared("a")
    flipped = dataclasses.replace(case, image=case.image[:, ::-1].copy())
    one, other = predict(net, case, CPU, mirror=True), predict(net, flipped, CPU, mirror=True)
    np.testing.assert_allclose(one.probability, other.probability[::-1], atol=1e-5)
    assert sum(one.markers["grade"]) == pytest.approx(1, abs=1e-9)
    plain = predict(net, case, CPU, mirror=False)
    assert not np.allclose(plain.probability, one.probability, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (9, 3)])
@pytest.mark.parametrize("layer", [Conv3d, ConvTranspose3d])
def test_bfloat16_gradients_of_small_sides_agree_with_float32(layer, kernel, stride, side) -> None:
    torch.manual_seed(0)
    conv = layer(8, 8, kernel, stride, kernel // 2)
    image = torch.randn(2, 8, side, side, side)
    gradients = []
    for bf16 in (False, True, True):
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = conv(image)
        out.float().square().sum().backward()
        gradients.append(conv.weight.grad.clone())
    exact, once, again = gradients
    assert torch.equal(once, again)
    assert (once - exact).norm() <= 0.03 * exact.norm()


@pytest.mark.parametrize("depth", [10, 20, 21])  # 64 x 20 x 16 = 20480 is torch's bound
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2)])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_convolution_by_onednn_is_torchs_own(rows, kernel, stride, depth, monkeypatch) -> None:
    asked = []
    given = torch.Tensor.to_mkldnn
    monkeypatch.setattr(torch.Tensor, "to_mkldnn", lambda x: asked.append(x.shape) or given(x))
    torch.manual_seed(0)
    ours = Conv3d(64, 8, kernel, stride, 1).double()
    image = torch.randn(rows, 64, depth, 16, 5, dtype=torch.float64)
    exact = torch.nn.Conv3d.forward(ours, image)
    exact.square().sum().backward()
    want = [exact, ours.weight.grad.clone(), ours.bias.grad.clone()]
    ours.float().zero_grad()
    single = image.float().requires_grad_()
    found = ours(single)
    found.square().sum().backward()
    small = rows == 1 and depth <= 20 and torch.backends.mkldnn.is_available()
    assert bool(asked) == small
    assert found.shape == exact.shape
    for own, other in zip((found, ours.weight.grad, ours.bias.grad), want, strict=True):
        assert (own - other).norm() <= 1e-5 * other.norm()
    assert single.grad.shape == image.shape
    with torch.no_grad():
        assert torch.equal(ours(single), found)
