"""Which cases are in which batch."""

import numpy as np
import pytest

from gliofed.training.order import generator, site_batches


def sizes(cases, batches, seed=0, least=1) -> list[int]:
    return [len(b) for b in site_batches(cases, batches, np.random.default_rng(seed), least)]


@pytest.mark.parametrize("least", [1, 2, 4])
@pytest.mark.parametrize("cases", [0, 1, 3, 4, 7, 40])
@pytest.mark.parametrize("batches", [1, 2, 7, 15])
def test_every_case_is_in_one_batch_of_a_pass(cases, batches, least) -> None:
    for seed in range(20):
        drawn = site_batches(cases, batches, np.random.default_rng(seed), least)
        assert len(drawn) == batches
        assert sorted(i for batch in drawn for i in batch) == list(range(cases))


def test_shares_are_even_within_one_group() -> None:
    for cases, batches, least in ((40, 7, 1), (3, 7, 1), (19, 5, 1), (40, 4, 4), (30, 7, 3)):
        groups = cases // least
        fewest, most = groups // batches, -(-groups // batches)
        for seed in range(50):
            drawn = sizes(cases, batches, seed, least)
            # a group has `least` cases, or one more where they do not divide
            assert min(drawn) >= fewest * least
            assert max(drawn) <= most * -(-cases // groups)


@pytest.mark.parametrize("least", [2, 3, 4])
def test_no_batch_has_fewer_cases_than_the_least_but_of_a_site_with_fewer(least) -> None:
    for seed in range(50):
        for cases in range(least, 4 * least):
            assert {n for n in sizes(cases, 9, seed, least) if 0 < n < least} == set()
        assert sum(n > 0 for n in sizes(least - 1, 9, seed, least)) == 1
        assert max(sizes(least - 1, 9, seed, least)) == least - 1
    # one case fewer in a batch is what a lower bound gives
    assert least - 1 in {n for seed in range(50) for n in sizes(least * 5, 9, seed, least - 1)}


def test_each_case_comes_in_each_batch_and_beside_each_other_case() -> None:
    batch_of_first, neighbours = set(), set()
    for seed in range(200):
        drawn = site_batches(6, 3, np.random.default_rng(seed))
        (number,) = (n for n, batch in enumerate(drawn) if 0 in batch)
        batch_of_first.add(number)
        neighbours.update(drawn[number])
    assert batch_of_first == {0, 1, 2}
    assert neighbours == set(range(6))


def test_the_joint_batches_of_many_small_sites_are_about_equal() -> None:
    for epoch in range(20):
        joint = np.zeros(8)
        for site in range(32):
            joint += [len(b) for b in site_batches(2, 8, generator(1, f"order/{site}", epoch))]
        assert joint.sum() == 64
        assert joint.max() <= 2 * 64 / 8  # no batch is much larger than the others
        assert joint.min() >= 1


def test_random_numbers_follow_from_seed_purpose_and_epoch() -> None:
    own = generator(1, "order/a", 3).random(4)
    assert np.array_equal(own, generator(1, "order/a", 3).random(4))
    for other in (
        generator(2, "order/a", 3),
        generator(1, "order/b", 3),
        generator(1, "order/a", 4),
    ):
        assert not np.array_equal(own, other.random(4))
