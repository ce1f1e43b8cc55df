"""Hiding parts of a scan: planted causes are found, and nothing else is."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from recorded_progress import RecordedProgress
from scipy.special import expit
from torch import nn
from torch.nn import functional

from gliofed.inference.forward import DeviceNetwork, predict
from gliofed.inference.occlusion import explain, plan_occlusion, similarity_to_random_weights
from gliofed.markers import BY_ID, MARKERS
from gliofed.models.network import build_net
from gliofed.reporting.case.answer_text import (
    FEW_SEQUENCES,
    NO_BRAIN,
    NOT_FINITE,
    REGION_NOT_FINITE,
    occlusion_gaps,
)
from gliofed.runtime.device import Device
from gliofed.study import NetworkConfig
from gliofed.training.augmentation import drop_sequences
from gliofed.types import SEQUENCES, Sequence

CPU = Device(torch.device("cpu"), False)
ALL = {"idh": "mutant", "codel_1p19q": "codeleted", "mgmt": "methylated", "grade": "4"}
WHERE = (slice(4, 9), slice(8, 12), slice(12, 18))
FLAIR = SEQUENCES.index(Sequence.FLAIR)


class Stub(nn.Module):
    """Answers by a function of (image, present) to the logit of IDH mutation; else undecided."""

    def __init__(self, logit) -> None:
        super().__init__()
        self.logit, self.asked = logit, []
        self.presence = nn.Linear(4, 1, bias=False)
        nn.init.ones_(self.presence.weight)  # trained with every sequence
        self.heads = nn.ModuleDict({m.id: Place(len(m.classes), m.id == "idh") for m in MARKERS})

    def trunk(self, image, present) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append((image.numpy().copy(), present.numpy().copy()))
        logit = torch.as_tensor(self.logit(image[0], present[0]), dtype=torch.float32)
        return torch.zeros(1, 1, *image.shape[2:]), logit.reshape(1, 1)


class Place(nn.Module):
    """The one feature as the second class's logit, or nothing."""

    def __init__(self, classes: int, taken: bool) -> None:
        super().__init__()
        self.classes, self.taken = classes, taken

    def forward(self, features, generators=()) -> torch.Tensor:
        logits = torch.zeros(len(features), self.classes)
        if self.taken:
            logits[:, 1] = features[:, 0]
        return logits


def planted(image, present) -> torch.Tensor:
    return image[(FLAIR, *WHERE)].mean()


@pytest.fixture
def case(make_prepared):
    """A cube that is all brain, its FLAIR bright where `planted` looks."""
    found = make_prepared("a", size=24)
    image = found.image.copy()
    image[(FLAIR, *WHERE)] += 3
    image.flags.writeable = False  # as mapped from the store
    return dataclasses.replace(found, image=image)


def nothing(case) -> np.ndarray:
    return np.zeros(case.image.shape[1:], bool)


def with_brain(case, brain):
    return dataclasses.replace(case, image=np.where(brain, case.image, np.float16(0)))


def gaps(found, plan) -> tuple[str, ...]:
    """What the page says of the parts that are absent."""
    finite = bool(np.isfinite(found.probability))
    return occlusion_gaps(finite, len(plan.corners), found.regions is not None, found.sequences)


def boxes(plan) -> list[np.ndarray]:
    """Each block as (X, Y, Z) of true and false."""
    grid = np.indices(plan.brain.shape)
    out = []
    for corner in plan.corners:
        inside = [(g >= c) & (g < c + s) for g, c, s in zip(grid, corner, plan.side, strict=True)]
        out.append(np.logical_and.reduce(inside))
    return out


def test_a_planted_cause_is_found_and_nothing_else(case) -> None:
    outline = nothing(case)
    outline[WHERE] = True
    plan = plan_occlusion(case, outline, mirror=False, block_mm=6, most=100)
    idh, codel, mgmt, grade = explain(DeviceNetwork(Stub(planted), CPU), case, plan, ALL)

    flair = case.image[FLAIR].astype(np.float32)
    total, count = np.zeros(flair.shape), np.zeros(flair.shape)
    own = expit(flair[WHERE].mean(dtype=float))
    for box in boxes(plan):
        hidden = np.where(box, 0, flair)
        total += box * (own - expit(hidden[WHERE].mean(dtype=float)))
        count += box
    np.testing.assert_allclose(idh.regions, total / count, atol=1e-6)
    touched = np.logical_or.reduce([b for b in boxes(plan) if b[WHERE].any()])
    assert np.array_equal(idh.regions != 0, touched)
    assert idh.regions[WHERE].min() > 0
    x, y, z = np.unravel_index(idh.regions.argmax(), idh.regions.shape)
    assert (x, y, z) in itertools.product(range(4, 9), range(8, 12), range(12, 18))

    assert idh.probability == pytest.approx(own, abs=1e-6)
    assert idh.sequences[Sequence.FLAIR] == pytest.approx(own - 0.5, abs=1e-6)
    assert [s for s, fall in idh.sequences.items() if fall != 0] == [Sequence.FLAIR]
    for other in (codel, mgmt, grade):
        assert not other.regions.any()
        assert list(other.sequences) == list(SEQUENCES)
        assert not any(other.sequences.values())
        assert gaps(other, plan) == ()


def test_the_other_class_has_the_opposite_map(case) -> None:
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=8)
    (mutant,) = explain(DeviceNetwork(Stub(planted), CPU), case, plan, {"idh": "mutant"})
    (wildtype,) = explain(DeviceNetwork(Stub(planted), CPU), case, plan, {"idh": "wildtype"})
    np.testing.assert_allclose(mutant.regions, -wildtype.regions, atol=1e-7)
    assert wildtype.sequences[Sequence.FLAIR] == pytest.approx(-mutant.sequences[Sequence.FLAIR])
    assert mutant.regions.any()
    assert (mutant.marker, mutant.class_name, wildtype.class_name) == ("idh", "mutant", "wildtype")


def test_an_answer_without_the_image_gives_zeros(case) -> None:
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=8)
    for why in explain(DeviceNetwork(Stub(lambda image, present: 1.5), CPU), case, plan, ALL):
        assert why.regions.dtype == np.float32
        assert why.regions.shape == case.image.shape[1:]
        assert not why.regions.any()
        assert not any(why.sequences.values())


def test_a_hidden_sequence_is_hidden_as_in_training(case) -> None:
    stub = Stub(lambda image, present: 2 * present[2])
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=24)
    (why,) = explain(DeviceNetwork(stub, CPU), case, plan, {"idh": "mutant"})
    assert not why.regions.any()
    assert why.sequences == {
        s: pytest.approx(expit(2) - 0.5 if s is Sequence.T2 else 0) for s in SEQUENCES
    }
    drawn = {}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        image, present = drop_sequences(
            case.image.astype(np.float32), np.ones(4, np.float32), 0.25, rng
        )
        drawn[tuple(present)] = image
    for index, (image, present) in enumerate(stub.asked[-4:]):
        assert present[0].tolist() == [float(i != index) for i in range(4)]
        assert np.array_equal(image[0], drawn[tuple(present[0])])


# MONAI indexes in a way that torch 2.9 said it would change
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.slow
def test_falls_are_those_of_predict_and_monai_finds_the_same_map(case) -> None:
    from monai.visualize import OcclusionSensitivity  # seconds

    net = build_net(NetworkConfig("small"), 3)
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=8)
    assert plan.side == (8, 8, 8)
    assert len(plan.corners) == 27
    whys = explain(DeviceNetwork(net, CPU), case, plan, ALL)
    own = predict(net, case, CPU, mirror=False).markers

    class Grade(nn.Module):
        def forward(self, image, present):
            return net(image, present).markers["grade"]

    image = torch.from_numpy(case.image.astype(np.float32))[None]
    theirs = OcclusionSensitivity(
        Grade(), mask_size=8, n_batch=1, verbose=False, mode=0.0, overlap=0
    )
    with torch.no_grad():
        found, _ = theirs(image, present=torch.ones(1, 4))
    expected = own["grade"][2] - np.asarray(found)[0, 2]
    assert np.ptp(expected) > 1e-5
    np.testing.assert_allclose(whys[3].regions, expected, atol=1e-7)
    for why in whys:
        assert why.probability == own[why.marker][BY_ID[why.marker].classes.index(why.class_name)]


def test_a_mirrored_plan_explains_the_mirrored_answer(case) -> None:
    stub = Stub(planted)
    plan = plan_occlusion(case, nothing(case), mirror=True, block_mm=12)
    (why,) = explain(DeviceNetwork(stub, CPU), case, plan, {"idh": "mutant"})
    assert why.probability == predict(stub, case, CPU, mirror=True).markers["idh"][1]
    other = tuple(reversed(range(24)))
    looked = np.zeros((24, 24, 24), bool)
    looked[WHERE] = True
    looked |= looked[other, :, :]
    touched = np.logical_or.reduce([b for b in boxes(plan) if (b & looked).any()])
    assert np.array_equal(why.regions != 0, touched)


@pytest.mark.parametrize("mirror", [False, True])
def test_progress_counts_the_passes(case, mirror) -> None:
    outline = nothing(case)
    outline[WHERE] = True
    plan = plan_occlusion(case, outline, mirror, block_mm=8, most=80)
    stub, progress = Stub(planted), RecordedProgress()
    explain(DeviceNetwork(stub, CPU), case, plan, ALL, progress)
    assert len(stub.asked) == plan.passes <= 80
    step = 2 if mirror else 1
    assert progress.counts == [(n, plan.passes) for n in range(step, plan.passes + 1, step)]


def test_explaining_twice_gives_the_same_bits_and_leaves_the_case_alone(case) -> None:
    net = build_net(NetworkConfig("small"), 0)
    before = case.image.tobytes()
    plans = [plan_occlusion(case, nothing(case), mirror=False, block_mm=12) for _ in range(2)]
    assert plans[0].corners == plans[1].corners
    one, two = (explain(DeviceNetwork(net, CPU), case, p, {"mgmt": "methylated"})[0] for p in plans)
    assert one.regions.tobytes() == two.regions.tobytes()
    assert one.sequences == two.sequences
    assert case.image.tobytes() == before


@pytest.mark.parametrize("seed", range(6))
def test_blocks_cover_the_brain_and_each_holds_some_of_it(case, seed) -> None:
    rng = np.random.default_rng(seed)
    centre, radius = rng.uniform(8, 16, 3), rng.uniform(3, 11)
    grid = np.indices((24, 24, 24))
    brain = ((grid - centre[:, None, None, None]) ** 2).sum(0) < radius**2
    spacing = rng.uniform(0.5, 3, 3)
    bare = dataclasses.replace(with_brain(case, brain), affine=np.diag([*spacing, 1]))
    block = float(rng.uniform(2, 12))
    plan = plan_occlusion(bare, nothing(case), mirror=False, block_mm=block, most=10_000)
    assert np.array_equal(plan.brain, brain)
    assert plan.side == tuple(max(1, round(block / s)) for s in spacing)
    covered = np.sum(boxes(plan), 0)
    assert (covered[brain] == 1).all()  # side by side: each once
    assert all((b & brain).any() for b in boxes(plan))
    beside = plan_occlusion(bare, ~brain, mirror=False, block_mm=block, most=10_000)
    assert beside.corners == plan.corners  # an outline beside the brain asks for nothing
    (why,) = explain(DeviceNetwork(Stub(lambda i, p: i.sum() / 99), CPU), bare, plan_occlusion(
        bare, nothing(case), mirror=False, block_mm=40), {"idh": "mutant"})  # fmt: skip
    assert not why.regions[~brain].any()


def test_blocks_between_lie_on_the_outline_most_of_it_first(case) -> None:
    outline = nothing(case)
    outline[9:17, 3:12, 5:24] = True
    alone = plan_occlusion(case, nothing(case), mirror=False, block_mm=8, most=10_000)
    every = plan_occlusion(case, outline, mirror=False, block_mm=8, most=10_000)
    assert every.corners[:27] == alone.corners
    between = every.corners[27:]
    half = set(itertools.product(range(0, 17, 4), repeat=3)) - set(alone.corners)
    held = [int((b & outline).sum()) for b in boxes(every)[27:]]
    assert held == sorted(held, reverse=True)
    assert min(held) > 0
    rest = dataclasses.replace(every, corners=tuple(sorted(half - set(between))))
    assert len(rest.corners) + len(between) == len(half)
    assert not any((b & outline).any() for b in boxes(rest))
    some = plan_occlusion(case, outline, mirror=False, block_mm=8, most=40)
    assert some.corners == every.corners[: 40 - 1 - 4]
    assert some.passes == 40


def test_blocks_are_made_larger_only_where_the_passes_do_not_suffice(case) -> None:
    enough = 27 + 1 + 4
    fits = plan_occlusion(case, nothing(case), mirror=False, block_mm=8, most=enough)
    assert (fits.block_mm, fits.passes) == (8, enough)
    larger = plan_occlusion(case, nothing(case), mirror=False, block_mm=8, most=enough - 1)
    assert larger.block_mm > 8
    assert larger.passes < enough
    assert np.sum(boxes(larger), 0)[larger.brain].min() == 1
    twice = plan_occlusion(case, nothing(case), mirror=True, block_mm=8, most=2 * enough)
    assert (twice.block_mm, twice.passes) == (8, 2 * enough)
    least = plan_occlusion(case, nothing(case), mirror=False, block_mm=8, most=6)
    assert len(least.corners) == 1
    with pytest.raises(ValueError, match="5 passes"):
        plan_occlusion(case, nothing(case), mirror=False, block_mm=8, most=5)


def test_one_sequence_alone_is_not_hidden_and_that_is_said(case) -> None:
    image = np.zeros_like(case.image)
    image[FLAIR] = case.image[FLAIR]
    alone = dataclasses.replace(case, image=image, present=(False, False, False, True))
    plan = plan_occlusion(alone, nothing(case), mirror=False, block_mm=8)
    (why,) = explain(DeviceNetwork(Stub(planted), CPU), alone, plan, {"idh": "mutant"})
    assert (why.sequences, gaps(why, plan)) == ({}, (FEW_SEQUENCES,))
    assert why.regions.max() > 0
    image[0] = case.image[0]
    two = dataclasses.replace(alone, image=image, present=(True, False, False, True))
    plan = plan_occlusion(two, nothing(case), mirror=False, block_mm=8)
    (why,) = explain(DeviceNetwork(Stub(planted), CPU), two, plan, {"idh": "mutant"})
    assert list(why.sequences) == [Sequence.T1, Sequence.FLAIR]
    assert gaps(why, plan) == ()


def test_without_a_brain_there_is_no_map_and_that_is_said(case) -> None:
    empty = with_brain(case, nothing(case))
    plan = plan_occlusion(empty, ~nothing(case), mirror=False)
    assert plan.passes == 1 + 4
    (why,) = explain(DeviceNetwork(Stub(lambda i, p: p.sum()), CPU), empty, plan, {"idh": "mutant"})
    assert (why.regions, gaps(why, plan)) == (None, (NO_BRAIN,))
    assert why.sequences[Sequence.T1] == pytest.approx(expit(4) - expit(3))
    bare = dataclasses.replace(empty, present=(False,) * 4)
    plan = plan_occlusion(bare, nothing(case), mirror=False)
    (why,) = explain(DeviceNetwork(Stub(planted), CPU), bare, plan, {"idh": "mutant"})
    assert plan.passes == 1
    assert why.probability == 0.5
    assert (why.regions, why.sequences, gaps(why, plan)) == (None, {}, (NO_BRAIN, FEW_SEQUENCES))


def test_probabilities_that_are_not_finite_explain_nothing(case) -> None:
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=8)
    broken = Stub(lambda image, present: torch.nan)
    idh, mgmt = explain(
        DeviceNetwork(broken, CPU), case, plan, {"idh": "mutant", "mgmt": "methylated"}
    )
    assert not np.isfinite(idh.probability)
    assert (idh.regions, idh.sequences) == (None, {})
    assert gaps(idh, plan) == (NOT_FINITE,)
    assert (mgmt.probability, gaps(mgmt, plan)) == (0.5, ())
    broken.asked.clear()
    (idh,) = explain(DeviceNetwork(broken, CPU), case, plan, {"idh": "mutant"})
    assert len(broken.asked) == 1  # no pass more than it takes to know
    assert gaps(idh, plan) == (NOT_FINITE,)


def test_a_part_whose_hiding_breaks_the_answer_is_left_out_and_said(case) -> None:
    plan = plan_occlusion(case, nothing(case), mirror=False, block_mm=8)
    corner = Stub(lambda image, present: torch.nan if image[0, 0, 0, 0] == 0 else 1.0)
    (why,) = explain(DeviceNetwork(corner, CPU), case, plan, {"idh": "mutant"})
    assert why.regions is None
    finite = [s for s, fall in why.sequences.items() if np.isfinite(fall)]
    assert finite == [Sequence.T1CE, Sequence.T2, Sequence.FLAIR]
    assert gaps(why, plan) == (REGION_NOT_FINITE, "without T1, the probability is not finite")


def test_what_cannot_be_meant_is_refused(case) -> None:
    with pytest.raises(ValueError, match="blocks of 0 mm"):
        plan_occlusion(case, nothing(case), mirror=False, block_mm=0)
    with pytest.raises(ValueError, match="mask"):
        plan_occlusion(case, np.zeros((24, 24, 23), bool), mirror=False)
    plan = plan_occlusion(case, nothing(case), mirror=False)
    stub = Stub(planted)
    with pytest.raises(KeyError):
        explain(DeviceNetwork(stub, CPU), case, plan, {"egfr": "amplified"})
    with pytest.raises(ValueError, match="not in tuple"):
        explain(DeviceNetwork(stub, CPU), case, plan, {"grade": "5"})
    cropped = dataclasses.replace(case, image=case.image[:, 1:])
    with pytest.raises(ValueError, match="a plan of"):
        explain(DeviceNetwork(stub, CPU), cropped, plan, ALL)
    assert stub.asked == []


CAUSE = (slice(3, 7), slice(8, 12), slice(9, 13))
DECOY = (slice(10, 14), slice(2, 6), slice(2, 6))


def scans(rng, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every second one mutant: its FLAIR is bright at the cause. T1 is bright at the decoy in all."""
    image = rng.standard_normal((count, 4, 16, 16, 16)).astype(np.float32)
    label = np.arange(count) % 2
    for own, mutant in zip(image, label, strict=True):
        own[(0, *DECOY)] += 4
        own[(FLAIR, *CAUSE)] += 4 * mutant
    return torch.from_numpy(image), torch.from_numpy(label)


@pytest.fixture(scope="module")
def taught():
    torch.set_num_threads(1)
    net = build_net(NetworkConfig("small"), 0).eval()  # without dropout: nothing is drawn
    rng = np.random.default_rng(0)
    optimiser = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(20):
        image, label = scans(rng, 4)
        logits = net(image, torch.ones(4, 4)).markers["idh"]
        optimiser.zero_grad()
        functional.cross_entropy(logits, label).backward()
        optimiser.step()
    return net


@pytest.fixture
def mutant(make_prepared):
    image, _ = scans(np.random.default_rng(1), 2)
    return dataclasses.replace(make_prepared("a"), image=image[1].numpy().astype(np.float16))


@pytest.mark.slow
def test_a_network_taught_a_cause_shows_it_and_one_of_random_weights_does_not(
    taught, mutant
) -> None:
    plan = plan_occlusion(mutant, nothing(mutant), mirror=False, block_mm=4)
    whys = explain(DeviceNetwork(taught, CPU), mutant, plan, {"idh": "mutant"})
    (why,) = whys
    assert why.probability > 0.6
    away = np.ones(why.regions.shape, bool)
    away[2:8, 7:13, 8:14] = False
    peak = np.unravel_index(why.regions.argmax(), why.regions.shape)
    assert not away[peak]
    assert why.regions[CAUSE].mean() > 5 * np.abs(why.regions[away]).mean()
    assert why.regions[CAUSE].mean() > 5 * np.abs(why.regions[DECOY]).mean()
    assert max(why.sequences, key=why.sequences.get) is Sequence.FLAIR
    for seed in (1, 2):
        assert (
            abs(
                similarity_to_random_weights(DeviceNetwork(taught, CPU), mutant, plan, whys, seed)[
                    "idh"
                ]
            )
            < 0.5
        )


def test_similarity_to_random_weights_is_one_for_that_very_network_and_none_without_a_map(
    mutant,
) -> None:
    net = build_net(NetworkConfig("small"), 5)
    plan = plan_occlusion(mutant, nothing(mutant), mirror=False, block_mm=8)
    whys = explain(DeviceNetwork(net, CPU), mutant, plan, ALL)
    assert similarity_to_random_weights(
        DeviceNetwork(net, CPU), mutant, plan, whys, 5
    ) == pytest.approx(dict.fromkeys(ALL, 1))
    flat = dataclasses.replace(whys[0], regions=np.zeros_like(whys[0].regions))
    absent = dataclasses.replace(whys[1], regions=None)
    found = similarity_to_random_weights(DeviceNetwork(net, CPU), mutant, plan, (flat, absent), 5)
    assert found == {"idh": None, "codel_1p19q": None}
