"""The order of cases: which of a site's cases are in which batch of a pass over all sites' cases.

Every site spreads its own cases evenly over the batches of a pass, in an order of its own. So each
batch has about the same share of every site's cases, a pass has every case once, and a site needs
only the number of batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def site_batches(
    cases: int, batches: int, rng: np.random.Generator, least: int = 1
) -> Sequence[Sequence[int]]:
    """For each batch of one pass, the numbers of the site's cases that are in it.

    Every case is in one batch. Systematic sampling: the i-th of n groups of `least` cases in random
    order is in batch floor((i + u) / n * batches), with one u from [0, 1) for all. So a batch has
    no case of the site, or at least `least`, where the site has as many.

    >>> [len(b) for b in site_batches(4, 2, np.random.default_rng(0))]
    [2, 2]
    >>> [len(b) for b in site_batches(7, 7, np.random.default_rng(0), least=3)]
    [0, 4, 0, 0, 0, 3, 0]
    """
    order = rng.permutation(cases)
    start = rng.random()
    drawn: list[list[int]] = [[] for _ in range(batches)]
    if cases == 0:
        return drawn
    groups = np.array_split(order, max(1, cases // least))
    for number, group in enumerate(groups):
        slot = int((number + start) / len(groups) * batches)
        drawn[min(slot, batches - 1)] += group.tolist()
    return drawn


def generator(seed: int, purpose: str, epoch: int) -> np.random.Generator:
    """Random numbers of one purpose and epoch: 64 bits from the names make their seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{epoch}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
