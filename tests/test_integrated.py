"""IDH, 1p/19q and grade together, the CNS5 type they make, and the spread of an outline."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import entropy

from gliofed.calibration.cns5 import (
    ASTROCYTOMA,
    GLIOBLASTOMA,
    NOT_DETERMINABLE,
    OLIGODENDROGLIOMA,
    OUTCOMES,
    UNSEEN,
    integrated_type,
    outcome_probabilities,
    reference_type,
)
from gliofed.calibration.joint_decision import (
    EXCLUDED,
    PRIOR_WEIGHT,
    allowed_cells,
    cell_counts,
    joint_probabilities,
    marginal_probabilities,
)
from gliofed.calibration.segmentation_uncertainty import ensemble_uncertainty
from gliofed.types import UNKNOWN, Labels


def marginals(idh, codel, grade):
    def two(p):
        return np.array([[1 - p, p]], float)

    return {"idh": two(idh), "codel_1p19q": two(codel), "grade": np.array([grade], float)}


EVERYTHING = {
    "idh": np.ones(2, bool), "codel_1p19q": np.ones(2, bool), "grade": np.ones(3, bool)
}  # fmt: skip


def sets(idh, codel, grade):
    return {
        "idh": np.array([c in idh for c in ("wildtype", "mutant")]),
        "codel_1p19q": np.array([c in codel for c in ("intact", "codeleted")]),
        "grade": np.array([c in grade for c in "234"]),
    }


def test_eight_cells_are_possible() -> None:
    forbidden = {tuple(i) for i in np.argwhere(~allowed_cells())}
    assert forbidden == {(0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 1, 2)}
    assert all(e.reason and "Louis" in e.source for e in EXCLUDED)


share = st.floats(0, 1)


@settings(max_examples=40, deadline=None)
@given(share, share, st.tuples(share, share, share).filter(lambda g: sum(g) > 0.01), st.booleans())
def test_no_impossible_cell_is_likely_and_all_sums_are_one(idh, codel, grade, counted) -> None:
    counts = np.arange(12).reshape(2, 2, 3) if counted else None
    cells = joint_probabilities(marginals(idh, codel, np.array(grade) / sum(grade)), counts)
    assert cells[0][~allowed_cells()].tolist() == [0, 0, 0, 0]
    assert (cells >= 0).all()
    assert cells.sum() == pytest.approx(1, abs=1e-12)
    for own in marginal_probabilities(cells).values():
        assert own.sum() == pytest.approx(1, abs=1e-12)
    assert outcome_probabilities(cells).sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("idh", "codel"), [(1.0, 0.7), (0.3, 0.0)])
def test_without_mass_on_impossible_cells_nothing_changes(idh, codel) -> None:
    given_ = marginals(idh, codel, [0.6, 0.4, 0.0])
    cells = joint_probabilities(given_)
    product = np.einsum("na,nb,nc->nabc", *given_.values())
    assert cells == pytest.approx(product, abs=1e-9)


def test_marginals_that_agree_are_hardly_moved_and_those_that_do_not_meet() -> None:
    found = marginal_probabilities(joint_probabilities(marginals(0.6, 0.5, [0.5, 0.4, 0.1])))
    product = np.einsum("na,nb,nc->nabc", *marginals(0.6, 0.5, [0.5, 0.4, 0.1]).values())
    alone = marginal_probabilities(product * allowed_cells() / (product * allowed_cells()).sum())
    for marker, share in (("idh", 0.6), ("codel_1p19q", 0.5)):
        moved = abs(found[marker][0, 1] - share)
        assert moved < 0.04
        assert moved < abs(alone[marker][0, 1] - share) / 3
    apart = marginal_probabilities(joint_probabilities(marginals(0.2, 0.8, [0.5, 0.4, 0.1])))
    assert apart["codel_1p19q"][0, 1] <= apart["idh"][0, 1]
    assert apart["idh"][0, 1] == pytest.approx(0.5, abs=0.05)


def test_the_joint_is_the_minimum_it_is_said_to_be() -> None:
    given_ = marginals(0.45, 0.35, [0.3, 0.3, 0.4])
    product = np.einsum("na,nb,nc->nabc", *given_.values())[0] * allowed_cells()
    product /= product.sum()

    def cells_of(v):
        q = np.zeros((2, 2, 3))
        q[allowed_cells()] = softmax(v)
        return q

    def loss(v):
        q = cells_of(v)
        own = marginal_probabilities(q[None])
        near = sum(given_[m][0] @ np.log(own[m][0]) for m in own)
        return -near - PRIOR_WEIGHT * product[allowed_cells()] @ np.log(q[allowed_cells()])

    best = minimize(loss, np.zeros(8), method="BFGS", options={"gtol": 1e-6})
    assert joint_probabilities(given_)[0] == pytest.approx(cells_of(best.x), abs=1e-4)


def test_counts_say_how_the_three_go_together() -> None:
    labels = [
        Labels({"idh": "mutant", "codel_1p19q": "codeleted", "grade": "2"}),
        Labels({"idh": "mutant", "codel_1p19q": "intact", "grade": "4"}),
        Labels({"idh": "mutant", "grade": "4"}),
    ]
    counts = cell_counts(labels)
    assert counts.sum() == 2
    assert (counts[1, 1, 0], counts[1, 0, 2]) == (1, 1)
    given_ = marginals(1.0, 0.5, [0.4, 0.2, 0.4])
    alone, counted = joint_probabilities(given_)[0], joint_probabilities(given_, counts * 50)[0]
    assert counted[1, 1, 0] > alone[1, 1, 0] + 0.02
    wrong = np.zeros_like(counts)
    wrong[0, 1, 0] = 1000  # forbidden, and not read
    assert joint_probabilities(given_, wrong) == pytest.approx(
        joint_probabilities(given_, wrong * 0), abs=1e-12
    )


def test_the_joint_keeps_calibrated_marginals_calibrated_where_the_product_does_not() -> None:
    """Honest marginals of one honest joint: the joint's log loss for each marker and the type."""
    rng = np.random.default_rng(0)
    prior = np.array([[[0.03, 0.07, 0.4], [0, 0, 0]], [[0.13, 0.1, 0.05], [0.12, 0.1, 0]]])
    means = rng.normal(size=(12, 4))
    truth = rng.choice(12, 2000, p=prior.ravel())
    seen = means[truth] + rng.normal(size=(2000, 4))
    chance = np.exp(-((seen[:, None] - means) ** 2).sum(2) / 2) * prior.ravel()
    honest = (chance / chance.sum(1, keepdims=True)).reshape(-1, 2, 2, 3)
    own = marginal_probabilities(honest)
    product = np.einsum("na,nb,nc->nabc", *own.values()) * allowed_cells()
    product /= product.sum((1, 2, 3), keepdims=True)
    counts = np.round(prior * 500).astype(int)
    found = joint_probabilities(own, counts)
    right = dict(zip(own, np.unravel_index(truth, (2, 2, 3)), strict=True))

    def loss(cells, marker):
        return -np.log(marginal_probabilities(cells)[marker][np.arange(2000), right[marker]]).mean()

    for marker in own:
        assert loss(found, marker) == pytest.approx(loss(honest, marker), abs=0.005)
    assert loss(product, "codel_1p19q") > loss(honest, "codel_1p19q") + 0.02
    kinds = outcome_probabilities(np.eye(12)[truth].reshape(-1, 2, 2, 3)).argmax(1)
    each = np.arange(2000)
    by_joint, by_product = (
        -np.log(outcome_probabilities(c)[each, kinds]).mean() for c in (found, product)
    )
    assert by_joint < by_product - 0.02


@pytest.mark.parametrize(
    ("idh", "codel", "grade", "answer"),
    [
        (0.99, 0.98, [0.8, 0.2, 0.0], OLIGODENDROGLIOMA),
        (0.99, 0.01, [0.3, 0.3, 0.4], ASTROCYTOMA),
        (0.01, 0.0, [0.0, 0.02, 0.98], GLIOBLASTOMA),
    ],
)
def test_a_sure_case_has_its_type(idh, codel, grade, answer) -> None:
    own = integrated_type(joint_probabilities(marginals(idh, codel, grade))[0], EVERYTHING, 0.8)
    assert own.answer == NOT_DETERMINABLE  # sets that rule nothing out
    assert "several types are possible" in own.reason
    assert own.open == OUTCOMES
    narrow = {
        OLIGODENDROGLIOMA: sets(["mutant"], ["codeleted"], "234"),
        ASTROCYTOMA: sets(["mutant"], ["intact"], "34"),
        GLIOBLASTOMA: sets(["wildtype"], ["intact", "codeleted"], "4"),
    }[answer]
    own = integrated_type(joint_probabilities(marginals(idh, codel, grade))[0], narrow, 0.8)
    assert (own.answer, own.reason, own.open) == (answer, "", (answer,))
    assert sum(own.probabilities.values()) == pytest.approx(1)
    assert own.unseen == UNSEEN
    assert all(w in UNSEEN for w in ("CDKN2A/B", "TERT", "EGFR", "+7/-10", "Research use"))


@pytest.mark.parametrize(
    ("given_", "left", "reason"),
    [
        ((0.01, 0.0, [0.1, 0.8, 0.1]), sets(["wildtype"], ["intact"], "3"), "TERT"),
        (
            (0.01, 0.0, [0.0, 0.4, 0.6]),
            sets(["wildtype"], ["intact"], "34"),
            "several types are possible",
        ),
        (
            (0.9, 0.5, [0.5, 0.5, 0]),
            sets(["mutant"], ["intact", "codeleted"], "23"),
            "several types are possible",
        ),
        ((0.9, 0.3, [0.5, 0.5, 0]), sets(["mutant"], ["intact"], "23"), "below 0.8"),
        (
            (0.9, 0.0, [0.5, 0.5, 0]),
            sets(["wildtype"], ["intact"], "4"),
            "the most probable type is Astro",
        ),
        ((0.9, 0.0, [0.5, 0.5, 0]), sets([], ["intact"], "4"), "every class of IDH mutation"),
        ((0.9, 0.0, [0.5, 0.5, 0]), sets(["wildtype"], ["codeleted"], "4"), "contradict"),
        ((np.nan, 0.0, [0.5, 0.5, 0]), EVERYTHING, "not finite"),
    ],
)
def test_what_leaves_the_type_open_is_said(given_, left, reason) -> None:
    own = integrated_type(joint_probabilities(marginals(*given_))[0], left, 0.8)
    assert own.answer == NOT_DETERMINABLE
    assert reason in own.reason


def test_the_least_probability_is_a_bound() -> None:
    cells = joint_probabilities(marginals(0.9, 0.3, [0.5, 0.5, 0]))[0]
    narrow = sets(["mutant"], ["intact"], "23")
    chance = integrated_type(cells, narrow, 0.0).probabilities[ASTROCYTOMA]
    assert integrated_type(cells, narrow, chance).answer == ASTROCYTOMA
    assert integrated_type(cells, narrow, chance + 1e-9).answer == NOT_DETERMINABLE


def test_the_type_by_labels() -> None:
    expected = {
        ("mutant", "codeleted", "2"): OLIGODENDROGLIOMA,
        ("mutant", "codeleted", None): OLIGODENDROGLIOMA,
        ("mutant", "intact", "4"): ASTROCYTOMA,
        ("mutant", None, "4"): UNKNOWN,
        ("wildtype", "intact", "4"): GLIOBLASTOMA,
        ("wildtype", None, "4"): GLIOBLASTOMA,
        ("wildtype", None, "3"): NOT_DETERMINABLE,
        ("wildtype", None, None): UNKNOWN,
        ("wildtype", "codeleted", "4"): UNKNOWN,
        (None, "codeleted", "2"): UNKNOWN,
        (None, None, None): UNKNOWN,
    }
    for (idh, codel, grade), answer in expected.items():
        values = {"idh": idh, "codel_1p19q": codel, "grade": grade}
        assert reference_type(Labels({k: v for k, v in values.items() if v})) is answer


def test_the_four_outcomes_share_out_every_possible_cell() -> None:
    for i, j, k in itertools.product(range(2), range(2), range(3)):
        cell = np.zeros((1, 2, 2, 3))
        cell[0, i, j, k] = 1
        assert outcome_probabilities(cell).sum() == allowed_cells()[i, j, k]


def test_spread_of_an_outline() -> None:
    maps = np.zeros((3, 4, 4, 4), np.float32)
    maps[0, :2], maps[1, :2], maps[2, :1] = 1.0, 0.5, 0.75
    own = ensemble_uncertainty(list(maps), np.array([1.0, 2.0, 5.0]), 0.5)
    assert own.volumes_ml == pytest.approx((0.32, 0.32, 0.16))
    assert own.volume_range_ml == pytest.approx((0.16, 0.32))
    assert own.volume_ml == pytest.approx(0.32)  # (1 + 0.5 + 0) / 3 is at the threshold
    assert own.agreement == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert own.mean == pytest.approx(maps.mean(0))
    assert own.deviation == pytest.approx(maps.std(0), abs=1e-6)
    mean = maps.mean(0).astype(float)[0, 0, 0]
    assert own.entropy[0, 0, 0] == pytest.approx(entropy([mean, 1 - mean], base=2), abs=1e-6)
    assert own.entropy[3, 3, 3] == 0
    for array in (own.mean, own.deviation, own.entropy):
        assert array.dtype == np.float32


def test_one_member_and_empty_outlines() -> None:
    one = ensemble_uncertainty([np.full((2, 2, 2), 0.5, np.float32)], np.ones(3), 0.5)
    assert (one.agreement, one.volume_range_ml) == (None, None)
    assert one.entropy == pytest.approx(1)
    none = np.zeros((2, 2, 2), np.float32)
    assert ensemble_uncertainty([none, none], np.ones(3), 0.5).agreement == 1
    for bad in ([], [none, none[:1]], [none, none + np.float32(np.nan)]):
        with pytest.raises(ValueError, match=r"expected maps|not finite"):
            ensemble_uncertainty(bad, np.ones(3), 0.5)
