"""Secret sums of 32-bit integers: exact sums, the unit, what error feedback gives back, and bytes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from secret_sites import MODEL, NAMES, federation, gradient_of, training
from test_secret_rounds import federate, hospitals, study_of  # noqa: F401

from gliofed.errors import StudyError
from gliofed.federated.compression import compress
from gliofed.federated.noise.shares import noise_of_site
from gliofed.federated.privacy.fixed_point import WIDE, fixed_point_of
from gliofed.federated.privacy.masks import apply_masks
from gliofed.privacy_config import PrivacyConfig
from gliofed.study import parse_study


def small(study, sites=NAMES, **federation):
    rules = dataclasses.replace(
        study.federation, privacy="secure-sum", compress="int32", **federation
    )
    data = dataclasses.replace(study.data, train=tuple(sites))
    return dataclasses.replace(study, federation=rules, data=data)


@pytest.mark.parametrize(
    ("sites", "largest", "bits"),
    [(3, 1000.0, 18), (16, 1000.0, 16), (64, 1000.0, 14), (3, 100.0, 21), (64, 2.0**16, 8)],
)
def test_the_unit_follows_from_the_largest_sum(tiny_study, sites, largest, bits) -> None:
    """Powers of two from 3 x 1000 < 2^12, 16 x 1000 < 2^14, and so on, below 2^30."""
    study = small(tiny_study, [f"s{i:02d}" for i in range(sites)], max_gradient=largest)
    fixed = fixed_point_of(study, 100)
    assert (fixed.dtype, fixed.fraction_bits) == (torch.int32, bits)
    whole = torch.tensor([sites * largest, -sites * largest])
    assert fixed.encode(whole).abs().max() <= 2**30
    assert torch.equal(fixed.decode(fixed.encode(whole)), whole.double())
    plain = dataclasses.replace(
        study, federation=dataclasses.replace(study.federation, compress="none")
    )
    assert fixed_point_of(plain, 100) == WIDE


def test_noise_needs_range_and_is_far_coarser_than_the_unit(tiny_study) -> None:
    privacy = PrivacyConfig(clip=1.0, patients=100, delta=1e-3, noise=4.0)
    study = dataclasses.replace(small(tiny_study), privacy=privacy)
    assert fixed_point_of(study, 10**7).unit > fixed_point_of(small(tiny_study), 10**7).unit
    assert fixed_point_of(study, 10**7).unit < noise_of_site(study) / 1000


def test_a_mask_of_32_bits_is_the_stream_of_the_cipher() -> None:
    """As for 64 bits: AES-256 of the counter blocks 0 and 1 under the key of 0."""
    tensors = {"a": torch.zeros(4, dtype=torch.int32), "b": torch.zeros(1, dtype=torch.int64)}
    apply_masks(tensors, [(bytes(32), 1)])
    assert tensors["a"].numpy().tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    wide = {"a": torch.zeros(2, dtype=torch.int64), "b": torch.zeros(1, dtype=torch.int64)}
    apply_masks(wide, [(bytes(32), 1)])
    assert torch.equal(wide["b"], tensors["b"])
    apply_masks(tensors, [(bytes(32), -1)])
    assert not any(v.any() for v in tensors.values())


@pytest.mark.parametrize("lost", ["", "c"])
def test_the_sum_is_that_of_the_rounded_gradients_bit_for_bit(tiny_study, tmp_path, lost) -> None:
    study = small(tiny_study)
    fixed = fixed_point_of(study, 203)
    sites, engine, sums = federation(study, tmp_path)
    engine.late = {(lost, "train")}
    exact = {name: torch.zeros(t.shape, dtype=torch.float64) for name, t in MODEL.items()}
    for site in sites:
        site.gradient, _, _ = compress(gradient_of(site.name, 50.0), "int32", {}, fixed.unit)
        for name, own in site.gradient.items():
            exact[name] += own.double() * (site.name != lost)
    opened = sums.add(training(), "round 0")
    for name, whole in exact.items():
        assert opened.tensors[name].dtype == torch.int32
        assert torch.equal(fixed.decode(opened.tensors[name]), whole)


def test_rounding_is_half_a_unit_and_error_feedback_gives_it_back() -> None:
    unit = 2.0**-6
    whole = {"a": torch.linspace(-3, 3, 1001)}
    sent, extra, residual = compress(whole, "int32", {}, unit)
    assert extra == {}
    assert torch.equal(sent["a"] / unit, (sent["a"] / unit).round())
    gap = (sent["a"] - whole["a"]).abs().max()
    assert 0.45 * unit < gap <= unit / 2
    total, residual = torch.zeros(1001, dtype=torch.float64), {}
    for _ in range(50):
        sent, _, residual = compress(whole, "int32", residual, unit)
        total += sent["a"]
    assert (total - 50 * whole["a"].double()).abs().max() < unit


def test_a_round_sends_half_the_bytes_for_the_same_gradient(
    hospitals,  # noqa: F811
    tiny_study,
    tmp_path,
) -> None:
    """The first moments of AdamW are a tenth of the gradient, which four sites have rounded."""
    wide, packed = (
        federate(
            hospitals,
            study_of(tiny_study, compress=how),
            tmp_path / how,
            stop=lambda done: done == 1,
        )
        for how in ("none", "int32")
    )
    unit = fixed_point_of(study_of(tiny_study, compress="int32"), 10**6).unit
    for name, moment in wide.state["exp_avg"].items():
        gap = (packed.state["exp_avg"][name] - moment).abs().max()
        assert gap <= 1e-5 * moment.abs().max() + 0.1 * 4 * unit / 2, name
    ratio = packed.history[0].bytes_up / wide.history[0].bytes_up
    assert 0.45 < ratio < 0.55
    kept = list((tmp_path / "int32/sites/a").glob("after-*.safetensors"))
    assert kept, "what rounding took away is not kept"


def test_it_is_for_secret_sums_alone() -> None:
    raw = {
        "name": "x",
        "data": {"root": ".", "train": ["a", "b", "c"], "external": ["z"]},
        "federation": {"compress": "int32", "privacy": "secure-sum"},
    }
    assert parse_study(raw).federation.summary.endswith("gradients as int32, summed in secret")
    with pytest.raises(StudyError, match="is the form of secret sums"):
        parse_study({**raw, "federation": {"compress": "int32"}})
