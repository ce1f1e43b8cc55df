"""Each attack of the privacy audit, on small inputs of which the answer is known: it finds what is
there, and nothing where there is nothing."""

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from gliofed.errors import DataError
from gliofed.evaluation.files import rows_csv
from gliofed.evaluation.privacy.image_similarity import (
    correlation,
    matched,
    structural_similarity,
)
from gliofed.evaluation.privacy.label_inference import (
    KnownHead,
    apportioned,
    group_hits,
    inferred_counts,
    share_right,
)
from gliofed.evaluation.privacy.membership import (
    MembershipGame,
    loss_scores,
    membership_rows,
    ratio_scores,
)
from gliofed.evaluation.privacy.rows import JOINT, PrivacyRow, parse_privacy_rows
from gliofed.experiments.privacy.inversion import (
    InversionSettings,
    cosine_distance,
    invert,
    scales,
    summed,
    total_variation,
    with_noise,
)
from gliofed.experiments.privacy.inversion_audit import InversionCase, compare, inversion_rows
from gliofed.experiments.privacy.label_audit import known_heads, label_rows, patient_gradients
from gliofed.experiments.privacy.site_gradients import SiteGradients
from gliofed.markers import MARKERS
from gliofed.models.network import build_net
from gliofed.reporting.study.privacy import privacy_markdown, with_privacy_section
from gliofed.runtime.progress import NO_PROGRESS
from gliofed.study import NetworkConfig

SEEDS, CASES = (1, 1, 2, 2, 3, 3), 120


def game_of(losses: np.ndarray, trained: np.ndarray, seeds=SEEDS) -> MembershipGame:
    """One task whose confidence is minus the logarithm of the loss."""
    return MembershipGame(
        ("idh",), losses[..., None], -np.log(losses)[..., None], trained,
        np.ones_like(trained), seeds, tuple(f"p{i}" for i in range(losses.shape[1])),
    )  # fmt: skip


def held_out(rng: np.random.Generator, share: float = 0.3) -> np.ndarray:
    """Models of one seed hold out the same cases."""
    by_seed = {s: rng.random(CASES) >= share for s in SEEDS}
    return np.stack([by_seed[s] for s in SEEDS])


def figures(game, attack, scores) -> dict[str, PrivacyRow]:
    return {r.metric: r for r in membership_rows(game, attack, scores, 200) if r.task == "idh"}


def overfitted(rng: np.random.Generator, trained: np.ndarray) -> np.ndarray:
    """(models, cases) losses of linear models with more weights than cases, fitted to random
    labels."""
    inputs = rng.standard_normal((CASES, 400))
    labels = rng.choice([-1.0, 1.0], CASES)
    losses = []
    for members in trained:
        weights = np.linalg.pinv(inputs[members]) @ labels[members]
        losses.append(np.logaddexp(0, -4 * labels * (inputs @ weights)))
    return np.stack(losses)


def test_the_members_of_an_overfitted_model_are_found() -> None:
    rng = np.random.default_rng(1)
    trained = held_out(rng)
    game = game_of(overfitted(rng, trained), trained)
    for attack, scores in (
        ("membership_loss", loss_scores(game)),
        ("membership_likelihood_ratio", ratio_scores(game)),
    ):
        found = figures(game, attack, scores)
        assert found["auc"].value > 0.9
        assert found["auc"].low > 0.8
        assert found["tpr_at_fpr_0.1"].value > 4 * found["tpr_at_fpr_0.1"].chance


def test_nothing_is_found_where_membership_is_drawn_anew() -> None:
    rng = np.random.default_rng(2)
    losses = overfitted(rng, held_out(rng))
    game = game_of(losses, held_out(rng))  # other cases than those that were trained on
    for attack, scores in (
        ("membership_loss", loss_scores(game)),
        ("membership_likelihood_ratio", ratio_scores(game)),
    ):
        found = figures(game, attack, scores)["auc"]
        assert found.low < 0.5 < found.high
        assert abs(found.value - 0.5) < 0.1


def test_reference_models_find_members_that_the_loss_does_not_show() -> None:
    """Cases differ far more in difficulty than a training changes."""
    rng = np.random.default_rng(3)
    trained = held_out(rng)
    confidence = 6 * rng.standard_normal(CASES) + trained + 0.3 * rng.standard_normal(trained.shape)
    game = game_of(np.exp(-confidence), trained)
    assert figures(game, "membership_loss", loss_scores(game))["auc"].value < 0.65
    found = figures(game, "membership_likelihood_ratio", ratio_scores(game))
    assert found["auc"].value > 0.9


@pytest.mark.parametrize(
    ("seeds", "possible"), [((1, 1, 1), False), ((1, 2), False), ((1, 2, 2), True)]
)
def test_reference_models_are_of_other_seeds_and_differ_in_their_patients(seeds, possible) -> None:
    rng = np.random.default_rng(4)
    trained = rng.random((len(seeds), CASES)) < 0.7
    game = game_of(rng.random(trained.shape) + 1, trained, seeds)
    assert (ratio_scores(game) is not None) is possible


@pytest.mark.parametrize(("others", "resolved"), [(99, False), (100, True)])
def test_a_rate_below_one_case_is_not_given(others, resolved) -> None:
    rng = np.random.default_rng(5)
    trained = np.arange(300)[None] >= others
    game = game_of(rng.random((1, 300)) + 1, trained, seeds=(1,))
    row = figures(game, "membership_loss", loss_scores(game))["tpr_at_fpr_0.01"]
    assert (row.value is not None) is resolved
    assert ("1 of 99" in row.note) is not resolved


def test_random_scores_have_the_rates_of_chance() -> None:
    rng = np.random.default_rng(6)
    trained = np.tile(np.arange(60) >= 30, (400, 1))
    game = game_of(rng.random((400, 60)) + 1, trained, seeds=(1,) * 400)
    found = figures(game, "membership_loss", loss_scores(game))
    for metric in ("tpr_at_fpr_0", "tpr_at_fpr_0.1"):
        assert found[metric].value == pytest.approx(found[metric].chance, abs=0.02)
    assert found["tpr_at_fpr_0"].low is None
    assert found["tpr_at_fpr_0.1"].low is not None


def test_the_loss_of_all_tasks_is_the_mean_of_the_known_ones() -> None:
    losses = np.array([[[1.0, 3.0], [2.0, math.nan]]])
    game = MembershipGame(("mask", "idh"), losses, losses, np.array([[True, False]]),
                          np.ones((1, 2), bool), (1,), ("a", "b"))  # fmt: skip
    assert loss_scores(game)[0, :, -1].tolist() == [-2.0, -2.0]


@pytest.fixture
def gradients(make_prepared, tiny_study):
    """A site with every class of every marker, and its network."""
    cases = []
    for number in range(12):
        labels = {m.id: m.classes[number % len(m.classes)] for m in MARKERS}
        cases.append(make_prepared(f"case-{number}", labels, site="a"))
    unlabelled = make_prepared("unlabelled", site="b")
    net = build_net(NetworkConfig("small"), seed=0)
    return net, SiteGradients(net, tiny_study, {"a": cases, "b": [unlabelled]})


MARKER_IDS = tuple(m.id for m in MARKERS)


def test_the_label_of_one_patient_follows_from_its_gradient(gradients) -> None:
    net, made = gradients
    heads = known_heads(net, made, [], MARKER_IDS)
    for patient in patient_gradients(made, MARKER_IDS, NO_PROGRESS):
        for marker, head in heads.items():
            known = patient.classes.get(marker)
            truth = tuple(int(k == known) for k in range(len(head.weights)))
            found = inferred_counts(patient.biases[marker], head, sum(truth))
            assert found == truth
            assert (patient.biases[marker] != 0).any() == (known is not None)


def test_the_pooled_features_of_one_patient_follow_from_its_gradient(gradients) -> None:
    """The first dense layer: the gradient of its weights over that of its bias is its input."""
    net, made = gradients
    batch = made.sample(made.plan.sites["a"][:1], 0)
    sent, features = made.sent(batch), net.trunk(batch.image, batch.present)[1][0]
    for marker in MARKER_IDS:
        first = f"heads.{marker}.layers.1"
        unit = int(sent[f"{first}.bias"].abs().argmax())
        kept = 1 - net.heads[marker].layers[0].p
        found = kept * sent[f"{first}.weight"][unit] / sent[f"{first}.bias"][unit]
        there = found != 0  # the others were dropped
        assert there.float().mean() > kept - 0.1
        assert torch.allclose(found[there], features[there], rtol=1e-3, atol=1e-4)


def test_shuffled_labels_are_inferred_no_better_than_by_a_guess(gradients) -> None:
    net, made = gradients
    heads = known_heads(net, made, [], MARKER_IDS)
    patients = patient_gradients(made, MARKER_IDS, NO_PROGRESS)
    rows = {(r.seen, r.task): r for r in label_rows("untrained", patients, heads)
            if r.defence == "none"}  # fmt: skip
    assert rows["gradient of 1 patient", JOINT].value == 1.0
    rng = np.random.default_rng(0)
    right = []
    for _ in range(40):
        order = rng.permutation(12)
        for i, j in enumerate(order):
            truth = [int(k == patients[j].classes["idh"]) for k in range(2)]
            counts = inferred_counts(patients[i].biases["idh"], heads["idh"], 1)
            right.append(group_hits(counts, (6, 6), truth).hits)
    assert abs(np.mean(right) - 0.5) < 0.1


def test_the_gradient_of_a_group_is_the_sum_of_its_patients(gradients) -> None:
    _, made = gradients
    cases = made.plan.sites["a"][:3]
    together = made.sent(made.sample(cases, 0))
    apart = [made.sent(made.sample([c], 0)) for c in cases]
    for name, tensor in together.items():
        assert torch.allclose(tensor, sum(a[name] for a in apart), atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize("patients", [1, 2])
def test_the_attackers_form_of_a_gradient_equals_the_one_sent(gradients, patients) -> None:
    _, made = gradients
    batch = made.sample(made.plan.sites["a"][:patients], 0)
    found = made.differentiable(batch, batch.image)
    for one, other in zip(found, made.sent(batch).values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_absent_sequences_of_a_guess_have_no_effect(gradients) -> None:
    _, made = gradients
    batch = made.sample(made.plan.sites["a"][:1], 0)
    batch = dataclasses.replace(batch, present=torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    other = batch.image.clone()
    other[:, 1] += 7
    one, two = (made.differentiable(batch, image) for image in (batch.image, other))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    other[:, 0] += torch.linspace(0, 1, other.shape[-1])
    changed = made.differentiable(batch, other)
    assert not all(torch.equal(a, b) for a, b in zip(one, changed, strict=True))


def test_crops_are_at_most_the_patch(gradients, tiny_study) -> None:
    net, made = gradients
    case = made.plan.sites["a"][0]
    patch = tiny_study.grid.patch
    for crop in (8, max(patch) + 1):
        image = SiteGradients(net, tiny_study, {"a": [case]}, crop).sample([case], 0).image
        assert image.shape[2:] == tuple(min(n, crop) for n in patch)


def test_counts_of_a_group_are_found_and_noise_hides_them() -> None:
    head = KnownHead(np.array([0.5, 2.0, 1.0]), np.full((3, 3), 1 / 3))
    rng = np.random.default_rng(0)
    exact, noisy = [], []
    for _ in range(60):
        truth = rng.multinomial(8, [0.5, 0.3, 0.2])
        gradient = truth @ head.expected()
        exact.append(group_hits(inferred_counts(gradient, head, 8), (5, 3, 2), truth))
        drowned = gradient + 50 * rng.standard_normal(3)
        noisy.append(group_hits(inferred_counts(drowned, head, 8), (5, 3, 2), truth))
    assert all(h.hits == h.labelled for h in exact)
    assert sum(h.hits for h in noisy) < sum(h.guessed for h in noisy)


def test_a_class_with_a_negative_entry_is_in_the_group() -> None:
    """A confident network: the expected gradient of the other class is far nearer."""
    head = KnownHead(np.array([1.0, 1.0]), np.array([[0.5, 0.5], [0.5, 0.5]]))
    assert inferred_counts(np.array([-1e-3, 1e-3]), head, 1) == (1, 0)
    assert inferred_counts(np.array([1e-3, -1e-3]), head, 1) == (0, 1)


def test_patients_are_shared_out_by_largest_remainders() -> None:
    assert apportioned([1, 1], 3) in ((2, 1), (1, 2))
    assert apportioned([0, 0, 4], 2) == (0, 0, 2)
    assert apportioned([1, 0], 0) == (0, 0)


def test_the_share_of_right_labels_has_an_interval_over_groups() -> None:
    every = share_right([4, 4], [4, 4])
    assert every.value == 1.0
    assert every.low < 0.5  # two groups, however many patients
    assert share_right([0], [0]).value is None
    some = share_right([1, 3, 4, 2], [4, 4, 4, 4])
    assert some.low < some.value < some.high


SMOOTH_IMAGE = torch.outer(torch.linspace(-1, 2, 6), torch.ones(6))[None, None, :, :, None] * (
    torch.linspace(0.5, 1, 6)
)


def one_gradient(net: nn.Module, label: int, image: torch.Tensor) -> list[torch.Tensor]:
    loss = nn.functional.cross_entropy(net(image), torch.tensor([label]))
    return list(torch.autograd.grad(loss, net.parameters(), create_graph=True))


def tiny_net(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(216, 3))
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(1728, 3)
    )


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_the_image_is_recovered_from_its_gradient_and_not_from_noise(kind) -> None:
    net = tiny_net(kind)
    gradient_of = partial(one_gradient, net, 1)
    sent = [g.detach() for g in gradient_of(SMOOTH_IMAGE)]
    shape = SMOOTH_IMAGE.shape
    settings = InversionSettings(iterations=200, smoothness=1e-3)
    truth = SMOOTH_IMAGE[0].numpy()
    found = invert(sent, gradient_of, shape, settings)[0].numpy()
    assert correlation(found, truth) > 0.9
    drawn = torch.Generator().manual_seed(2)
    noise = [torch.randn(g.shape, generator=drawn) for g in sent]
    lost = invert(noise, gradient_of, shape, settings)[0].numpy()
    assert abs(correlation(lost, truth)) < 0.5
    hidden = invert(with_noise(sent, 1.0, 3), gradient_of, shape, settings)[0].numpy()
    assert correlation(hidden, truth) < correlation(found, truth) - 0.3


def test_the_noise_has_the_deviation_that_was_asked_for() -> None:
    gradient = [torch.full((200, 100), 0.03), torch.full((50,), -0.4)]
    norm = torch.cat([g.flatten() for g in gradient]).norm()
    noisy = with_noise(gradient, 0.25, seed=1)
    added = torch.cat([(n - g).flatten() for n, g in zip(noisy, gradient, strict=True)])
    assert added.std() == pytest.approx(0.25 * float(norm), rel=0.02)
    assert torch.equal(with_noise(gradient, 0.0, seed=1)[0], gradient[0])


def test_grids_begin_at_four_voxels_and_are_summed_at_full_size() -> None:
    assert scales((3, 4, 4)) == [(3, 4, 4)]
    assert scales((5, 4, 4)) == [(3, 2, 2), (5, 4, 4)]
    coarse, fine = torch.full((1, 2, 3, 2, 2), 2.0), torch.ones(1, 2, 5, 4, 4)
    fine[..., 0] = 5
    assert torch.equal(summed([coarse, fine]), fine + 2)


def test_distance_and_variation_of_known_tensors() -> None:
    one = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    assert float(cosine_distance(one, [2 * t for t in one])) == pytest.approx(0)
    assert float(cosine_distance(one, [-t for t in one])) == pytest.approx(2)
    assert float(cosine_distance(one, [0 * t for t in one])) == pytest.approx(1)
    steps = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
    assert float(total_variation(steps)) == pytest.approx(1)
    assert float(total_variation(torch.ones(1, 1, 1, 1, 1))) == 0


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, 8, 8, 8)) for _ in range(count)]


def test_similarity_of_an_image_with_itself_and_with_another() -> None:
    one, other = images(2)
    assert correlation(one, 3 * one + 1) == pytest.approx(1)
    assert structural_similarity(one, one) == pytest.approx(1)
    assert abs(correlation(one, other)) < 0.2
    assert structural_similarity(other, one) < 0.3
    assert correlation(one, np.zeros_like(one)) == 0
    assert structural_similarity(one, np.zeros_like(one)) == 0


def test_found_images_are_matched_with_patients_and_patients_identified() -> None:
    truths, others = images(3), images(9, seed=1)
    noisy = [t + 0.5 * n for t, n in zip(truths, images(3, seed=2), strict=True)]
    found = [noisy[2], noisy[0], noisy[1]]
    assert [id(m) for m in matched(found, truths)] == [id(n) for n in noisy]
    results = compare(found, truths, others)
    assert all(r.identified and r.correlation > 0.8 for r in results)
    nothing = compare(images(3, seed=4), truths, images(60, seed=1))
    assert not any(r.identified for r in nothing)
    rows = inversion_rows("untrained", InversionCase("seen", "none", ()), results, len(others))
    by_metric = {r.metric: r for r in rows}
    assert by_metric["identified"].chance == pytest.approx(0.1)
    assert by_metric["identified"].value == 1
    assert by_metric["correlation"].low > by_metric["correlation"].chance
    assert by_metric["correlation"].value == np.mean([r.correlation for r in results])


ROW = PrivacyRow("label_inference", "trained", "gradient of 1 patient", "none", JOINT, "right",
                 0.9, 0.8, None, 0.5, 40, "a, note")  # fmt: skip


def test_the_table_reads_back_and_a_damaged_one_is_named() -> None:
    text = rows_csv(PrivacyRow, [ROW])
    assert parse_privacy_rows(text, "privacy.csv") == (ROW,)
    with pytest.raises(DataError, match=r"privacy\.csv:2"):
        parse_privacy_rows(text.replace("0.9", "nine"), "privacy.csv")
    with pytest.raises(DataError, match="no attack"):
        parse_privacy_rows(text.replace("label_inference", "guess"), "privacy.csv")
    with pytest.raises(DataError, match="no table of a privacy audit"):
        parse_privacy_rows(text.replace("metric", "measure"), "privacy.csv")


def test_the_card_has_one_section_of_the_last_audit() -> None:
    card = "# Model\n\ntext\n"
    assert with_privacy_section(card, []) == card
    once = with_privacy_section(card, [ROW])
    assert "| trained | gradient of 1 patient | none | all |" in once
    assert with_privacy_section(once, [ROW]) == once
    assert "0.90" in privacy_markdown("study", [ROW])
